"""2:4 sparsity: of every 4 consecutive input channels at most 2 weights are not zero.

The groups of 4 run along the input channels, for each filter and kernel position on its own: the layout that
sparse tensor cores read (NVIDIA TensorRT developer guide, "Sparsity").
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.base import Aim
from prunec.passes.cost import Layer
from prunec.passes.fours import at_most_two_of_four
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.ratios import matches

_NO_MULTIPLE = "input channels are no multiple of 4"


@dataclass(frozen=True)
class LayerEligibility:
    """Whether a layer, by its module path, can carry 2:4 sparsity; the reason is empty where it can.

    `valid` says whether its weight holds 2:4 as it is, where that was looked at (`with_weights`).
    """

    layer: str
    operator: str
    weight: str
    shape: tuple[int, ...]
    eligible: bool
    reason: str
    valid: bool = False

    @property
    def asked(self) -> bool:
        """Whether 2:4 is asked of it: it wasn't left out by name, and there are sparse kernels for its kind."""
        return self.eligible or self.reason.endswith(_NO_MULTIPLE)


def eligibility(program: Program, ignore: Sequence[str] = ()) -> list[LayerEligibility]:
    """Every weighted layer, once, with the reason where it can't carry 2:4 sparsity; ``ignore`` leaves layers dense."""
    parameters = program.parameters()
    by_weight: dict[str, LayerEligibility] = {}
    for layer in program.layers():
        known = by_weight.get(layer.weight)
        if known is None or known.eligible:  # a weight used twice must be eligible in both uses
            reason = _reason(layer, parameters, ignore)
            entry = LayerEligibility(layer.name, layer.operator, layer.weight, layer.shape, not reason, reason)
            by_weight[layer.weight] = entry
    return list(by_weight.values())


def with_weights(layers: Sequence[LayerEligibility], program: Program) -> list[LayerEligibility]:
    """The layers of a program, each with whether its weight holds 2:4."""
    parameters = program.parameters()
    return [replace(layer, valid=layer.eligible and is_two_four(parameters[layer.weight])) for layer in layers]


def _reason(layer: Layer, parameters: dict[str, nn.Parameter], ignore: Sequence[str]) -> str:
    channels = layer.shape[1] if len(layer.shape) > 1 else 0
    if layer.weight not in parameters:
        return "the weight is computed, not a parameter"
    if matches([layer.name], ignore):
        return "left dense by the option ignore"
    kind = WEIGHTED.get(layer.operator)
    if kind is None or kind.is_transposed:
        masked = "only weights (filters, inputs) of convolutions and linear layers are masked"
        return f"{layer.operator} has no sparse kernels" if kind else f"{layer.operator}: {masked}"
    if layer.groups != 1:
        return f"grouped convolution ({layer.groups} groups)"
    if channels % 4:
        return f"{channels} {_NO_MULTIPLE}"
    return ""


def two_four_aim(layers: Sequence[LayerEligibility]) -> Aim:
    """The layers that masking is asked to make 2:4, one at least, and those that can be."""
    got, asked = sum(layer.eligible for layer in layers), sum(layer.asked for layer in layers)
    reasons = dict.fromkeys(layer.reason for layer in layers if layer.reason)
    return Aim("layers made 2:4", max(1, asked), got, ", ".join(reasons) if got < max(1, asked) else "")


def two_four_mask(scores: Tensor) -> Tensor:
    """Bool mask of the 2 highest scores (K, C, ...) of every 4 consecutive input channels; ties go to the lower one."""
    rows = scores.movedim(1, -1)
    groups = rows.reshape(*rows.shape[:-1], -1, 4)
    # A stable descending sort keeps the lower channel first among equals.
    order = groups.sort(dim=-1, descending=True, stable=True).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :2], True)
    return mask.reshape(rows.shape).movedim(-1, 1).contiguous()


def is_two_four(weight: Tensor) -> bool:
    """Whether a weight (K, C, ...) has at most 2 non-zeros in every 4 consecutive input channels."""
    if weight.ndim < 2 or weight.shape[1] % 4:
        return False
    return at_most_two_of_four((weight.detach() != 0).cpu().numpy(), axis=1)


def layer_stats(entry: LayerEligibility, tensors: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Any]:
    """Facts about a layer for the report; retained magnitude is the kept share of the sum of absolute weights."""
    stats = {name: getattr(entry, name) for name in ("layer", "operator", "shape", "eligible", "reason")}
    retained = None
    if entry.eligible:
        magnitude = tensors[entry.weight].detach().abs().double()
        total = magnitude.sum()
        retained = float((magnitude * masks[entry.weight]).sum() / total) if total > 0 else 1.0
    return {**stats, "shape": list(entry.shape), "retained_magnitude": retained}
