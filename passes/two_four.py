"""2:4 sparsity: of every 4 consecutive input channels at most 2 weights are not zero.

The groups of 4 run along the input channels, for each filter and kernel position on its own: the layout that
sparse tensor cores read (NVIDIA TensorRT developer guide, "Sparsity").
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from prunec.passes.base import PassResult
from prunec.passes.cost import CONVOLUTIONS, Layer
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.program import Program
from prunec.passes.ratios import check_globs, matches

CRITERIA = ("magnitude", "wanda", "sparsegpt")


@dataclass(frozen=True)
class LayerEligibility:
    """Whether a layer can carry 2:4 sparsity, and if not, why.

    Attributes:
        layer: module path.
        operator: ATen operator.
        weight: name of the weight.
        shape: of the weight.
        eligible: whether it can.
        reason: why not; empty for an eligible layer.
    """

    layer: str
    operator: str
    weight: str
    shape: tuple[int, ...]
    eligible: bool
    reason: str


def eligibility(program: Program, ignore: Sequence[str] = ()) -> list[LayerEligibility]:
    """Every weighted layer, once, with the reason where it can't carry 2:4 sparsity.

    Args:
        program: any program.
        ignore: globs of layers to leave dense.
    """
    parameters = program.parameters()
    found: dict[str, LayerEligibility] = {}
    for layer in program.layers():
        reason = _reason(layer, parameters, ignore)
        entry = LayerEligibility(layer.name, layer.operator, layer.weight, layer.shape, not reason, reason)
        known = found.get(layer.weight)
        # A weight used twice must be eligible in both uses.
        found[layer.weight] = entry if known is None or known.eligible else known
    return list(found.values())


def _reason(layer: Layer, parameters: dict[str, nn.Parameter], ignore: Sequence[str]) -> str:
    channels = layer.shape[1] if len(layer.shape) > 1 else 0
    if layer.weight not in parameters:
        return "the weight is computed, not a parameter"
    if matches([layer.name], ignore):
        return "left dense by the option ignore"
    if layer.operator not in (*CONVOLUTIONS, "linear"):
        return f"{layer.operator} has no sparse kernels"
    if layer.groups != 1:
        return f"grouped convolution ({layer.groups} groups)"
    if channels % 4:
        return f"{channels} input channels are no multiple of 4"
    return ""


def two_four_mask(weight: Tensor) -> Tensor:
    """Keep the 2 largest magnitudes of every 4 consecutive input channels; ties go to the lower channel.

    Args:
        weight: (K, C, ...), C a multiple of 4.

    Returns:
        Bool mask of the same shape.
    """
    rows = weight.detach().abs().movedim(1, -1)
    groups = rows.reshape(*rows.shape[:-1], -1, 4)
    # A stable descending sort keeps the lower channel first among equals.
    order = groups.sort(dim=-1, descending=True, stable=True).indices
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :2], True)
    return mask.reshape(rows.shape).movedim(-1, 1).contiguous()


def is_two_four(weight: Tensor) -> bool:
    """Whether a weight (K, C, ...) has at most 2 non-zeros in every 4 consecutive input channels."""
    if weight.ndim < 2 or weight.shape[1] % 4:
        return False
    rows = weight.detach().movedim(1, -1)
    return bool(((rows.reshape(*rows.shape[:-1], -1, 4) != 0).sum(-1) <= 2).all())


@dataclass(frozen=True)
class Sparsify:
    """Mask every eligible layer to 2:4; the masks stay with the program and hold in finetuning.

    Attributes:
        pattern: "2:4".
        criterion: what weights are kept by: "magnitude", or what their inputs on calibration data make of them,
            "wanda" or "sparsegpt", which also updates the kept weights (`prunec.calibration.one_shot`).
        samples: calibration inputs of the latter two.
        ignore: globs of layers to leave dense.
    """

    pattern: Literal["2:4"] = "2:4"
    criterion: Literal["magnitude", "wanda", "sparsegpt"] = "magnitude"
    samples: int = 128
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "sparsify"

    def __post_init__(self) -> None:
        """Refuse other patterns and criteria."""
        if self.pattern != "2:4":
            raise UsageError(f"Unknown sparsity pattern {self.pattern!r}.", hint="Known: '2:4'.")
        if self.criterion not in CRITERIA:
            raise UsageError(f"Unknown 2:4 criterion {self.criterion!r}.", hint=did_you_mean(self.criterion, CRITERIA))
        if self.samples < 2:
            raise UsageError(f"sparsify: samples must be at least 2, got {self.samples}.")

    def run(self, program: Program) -> PassResult:
        """Mask a program by magnitude; other weights are shared with it.

        Raises:
            UsageError: a glob of ``ignore`` matches no layer, or the criterion needs inputs.
        """
        if self.criterion != "magnitude":
            raise UsageError(f"The 2:4 criterion {self.criterion} needs calibration inputs.")
        check_globs(self.ignore, [layer.name for layer in program.layers()], "ignore")
        found = eligibility(program, self.ignore)
        tensors: dict[str, Tensor] = program.tensors()
        masks = {entry.weight: two_four_mask(tensors[entry.weight]) for entry in found if entry.eligible}
        sparse = {
            id(tensors[name]): nn.Parameter(tensors[name].detach() * mask, tensors[name].requires_grad)
            for name, mask in masks.items()
        }
        result = program.with_tensors({name: sparse.get(id(tensor), tensor) for name, tensor in tensors.items()})
        result = replace(result, masks={**program.masks, **masks})
        return PassResult(result, bool(masks), {"layers": [layer_stats(e, tensors, masks) for e in found]})


def layer_stats(entry: LayerEligibility, tensors: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Any]:
    """What the report says of a layer; retained magnitude is the kept share of the sum of absolute weights."""
    stats: dict[str, Any] = {
        "layer": entry.layer,
        "operator": entry.operator,
        "shape": list(entry.shape),
        "eligible": entry.eligible,
        "reason": entry.reason,
        "retained_magnitude": None,
    }
    if entry.eligible:
        magnitude = tensors[entry.weight].detach().abs().double()
        total = magnitude.sum()
        stats["retained_magnitude"] = float((magnitude * masks[entry.weight]).sum() / total) if total > 0 else 1.0
    return stats
