"""Which layers can carry a mask of a pattern, and why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

from torch import Tensor, nn

from prunec.passes.base import Aim
from prunec.passes.cost import Layer
from prunec.passes.operators import WEIGHTED
from prunec.passes.patterns.pattern import ELEMENTS, TWO_FOUR, Pattern
from prunec.passes.patterns.rule import MaskRule
from prunec.passes.patterns.unit_masks import has_pattern
from prunec.passes.program import Program
from prunec.passes.ratios import matches
from prunec.passes.roles import expand_roles

_TWO_FOUR: Final = Pattern.parse(TWO_FOUR)
_NO_MULTIPLE = "input channels are no multiple of"
_ONE_STAYS = "one unit stays in every layer"


@dataclass(frozen=True)
class LayerEligibility:
    """Whether a layer, by its module path, can carry a mask of a pattern; the reason is empty where it can.

    `valid` says whether its weight has the pattern as it is, where that was looked at (`with_weights`).
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
        """Whether N:M is asked of it: it wasn't left out by name, and its kind can be masked."""
        return self.eligible or _NO_MULTIPLE in self.reason


def eligibility(
    program: Program, ignore: Sequence[str] = (), pattern: Pattern = _TWO_FOUR, *, by_inputs: bool = False
) -> list[LayerEligibility]:
    """Every weighted layer, once, with the reason where it can't carry a mask of a pattern.

    Args:
        program: Any program.
        ignore: Globs of layers, or roles (`prunec.passes.roles`), that are left dense.
        pattern: The pattern.
        by_inputs: Whether weights are chosen by what the layer reads, which is looked at in convolutions without groups
            and linear layers only.
    """
    parameters, ignore = program.parameters(), expand_roles(program.graph, ignore)
    by_weight: dict[str, LayerEligibility] = {}
    for layer in program.layers():
        known = by_weight.get(layer.weight)
        if known is None or known.eligible:  # a weight used twice must be eligible in both uses
            reason = _reason(layer, parameters, ignore, pattern) or (_unseen(layer) if by_inputs else "")
            entry = LayerEligibility(layer.name, layer.operator, layer.weight, layer.shape, not reason, reason)
            by_weight[layer.weight] = entry
    return list(by_weight.values())


def with_weights(layers: Sequence[LayerEligibility], program: Program) -> list[LayerEligibility]:
    """The layers of a program, each with whether its weight holds 2:4."""
    parameters = program.parameters()
    return [
        replace(layer, valid=layer.eligible and has_pattern(_TWO_FOUR, parameters[layer.weight])) for layer in layers
    ]


def _reason(layer: Layer, parameters: Mapping[str, nn.Parameter], ignore: Sequence[str], pattern: Pattern) -> str:
    if layer.weight not in parameters:
        return "the weight is computed, not a parameter"
    if matches([layer.name], ignore):
        return "left dense by the option ignore"
    if layer.operator not in WEIGHTED:
        return f"{layer.operator}: only weights (filters, inputs) of convolutions and linear layers are masked"
    return "" if pattern.text == ELEMENTS else _without_units(layer, pattern)


def _without_units(layer: Layer, pattern: Pattern) -> str:
    """Why a weight isn't made of whole units of a pattern; empty where it is."""
    if WEIGHTED[layer.operator].is_transposed:
        return f"{layer.operator} has no sparse kernels" if pattern.n_of_m else f"{layer.operator}: no im2col matrix"
    if layer.groups != 1 and pattern.text != "rows":
        return f"grouped convolution ({layer.groups} groups)"
    if pattern.n_of_m and layer.shape[1] % pattern.n_of_m[1]:
        return f"{layer.shape[1]} {_NO_MULTIPLE} {pattern.n_of_m[1]}"
    return ""


def _unseen(layer: Layer) -> str:
    """Why the inputs of a layer that can be masked aren't looked at; empty where they are."""
    is_plain = layer.groups == 1 and not WEIGHTED[layer.operator].is_transposed
    return "" if is_plain else f"{layer.operator}, {layer.groups} groups: its inputs aren't looked at"


def n_of_m_aim(layers: Sequence[LayerEligibility], pattern: Pattern) -> Aim:
    """The layers that masking is asked to make N:M, one at least, and those that can be."""
    got, asked = sum(layer.eligible for layer in layers), sum(layer.asked for layer in layers)
    reasons = dict.fromkeys(layer.reason for layer in layers if layer.reason)
    return Aim(pattern.counted, max(1, asked), got, ", ".join(reasons) if got < max(1, asked) else "")


@dataclass(frozen=True)
class Masked:
    """What a rule asked for and reached.

    Attributes:
        weights: Number of weights of the layers that can carry masks.
        masked: Number of those that are masked now, earlier ones included.
        wanted: Number that the rule wanted.
    """

    weights: int
    masked: int
    wanted: Fraction

    @classmethod
    def of(cls, rule: MaskRule, masks: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> "Masked":
        """The counts of new masks, from those and the masks before by the weights' names."""
        sizes = {name: mask.numel() for name, mask in masks.items()}
        gone = {name: int((~before[name]).sum()) if name in before else 0 for name in masks}
        if rule.allocation == "layer":
            wanted = sum((rule.wanted(sizes[name], gone[name]) for name in masks), Fraction(0))
        else:
            wanted = rule.wanted(sum(sizes.values()), sum(gone.values()))
        return cls(sum(sizes.values()), sum(int((~mask).sum()) for mask in masks.values()), wanted)


def mask_aim(layers: Sequence[LayerEligibility], rule: MaskRule, masked: Masked) -> Aim:
    """What masking was asked for, and reached: layers of N:M, weights of other patterns."""
    if rule.pattern.n_of_m is not None:
        return n_of_m_aim(layers, rule.pattern)
    if not masked.weights:
        reasons = dict.fromkeys(layer.reason for layer in layers)
        return Aim(rule.pattern.counted, 1, 0, ", ".join(reasons) or "the network has no layer with a weight")
    is_short = masked.masked < masked.wanted
    return Aim(rule.pattern.counted, float(masked.wanted), masked.masked, _ONE_STAYS if is_short else "")


def layer_stats(entry: LayerEligibility, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """Facts about a layer for the report; retained magnitude is the kept share of the sum of absolute weights."""
    stats = {name: getattr(entry, name) for name in ("layer", "operator", "shape", "eligible", "reason")}
    retained = None
    if entry.eligible:
        magnitude = tensors[entry.weight].detach().abs().double()
        total = magnitude.sum()
        retained = float((magnitude * masks[entry.weight]).sum() / total) if total > 0 else 1.0
    return {**stats, "shape": list(entry.shape), "retained_magnitude": retained}
