"""Choose widths for a target speed-up in MACs: one ratio everywhere, then single steps back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.cost import TRANSPOSED, call_macs, weighted_calls
from prunec.passes.coupling import Coupling, Group
from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, operator_name
from prunec.passes.labels import Atoms, parts
from prunec.passes.program import Program
from prunec.passes.ratios import Rounding

_BISECTIONS = 40
#: Share of the budget that may be left over.
_CLOSE_ENOUGH = 0.01


@dataclass(frozen=True)
class MacModel:
    """MACs of a program as a function of the units kept per group: products of affine functions, summed.

    Attributes:
        scale: of each layer, float64 (layers,).
        slopes: channels per kept unit for each factor, float64 (factors, groups).
        constants: channels that stay anyway, float64 (factors,).
        starts: first factor of each layer, int64 (layers,).
    """

    scale: NDArray[np.float64]
    slopes: NDArray[np.float64]
    constants: NDArray[np.float64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, program: Program, coupling: Coupling) -> "MacModel":
        """The model of a program with all its prunable groups."""
        scale: list[float] = []
        slopes: list[NDArray[np.float64]] = []
        constants: list[float] = []
        starts: list[int] = []
        counts = np.array([group.count for group in coupling.groups], dtype=float)
        for node, _ in weighted_calls(program.graph):
            starts.append(len(slopes))
            size = 1.0
            for label in _factors(coupling, node):
                owners = coupling.group_of_root[coupling.roots[label]]
                per_group = np.bincount(owners + 1, minlength=len(counts) + 1)
                slopes.append(per_group[1:] / counts)
                constants.append(float(per_group[0]))
                size *= len(label)
            slopes.append(np.zeros(len(counts)))  # so that every layer has a factor
            constants.append(1.0)
            scale.append(call_macs(node) / size)
        return cls(np.array(scale), np.array(slopes), np.array(constants), np.array(starts))

    def macs(self, kept: NDArray[np.int64]) -> float:
        """MACs for one sample with ``kept`` units in each group, int64 (groups,)."""
        sizes = self.slopes @ kept + self.constants
        return float(self.scale @ np.multiply.reduceat(sizes, self.starts))


def _factors(coupling: Coupling, node: Node) -> list[Atoms]:
    """Labels whose sizes multiply into a layer's MACs: of its output, and of the inputs that each output sums over."""
    bound, labels = arguments(node), [*coupling.ties.of(node)]
    if operator_name(node.target) not in TRANSPOSED:
        labels.append(coupling.ties.of(bound["weight"])[1])
    elif bound["groups"] == 1:  # with groups dimension 0 holds the inputs of all, and an output sums over one's
        labels.append(coupling.ties.of(bound["weight"])[0])
    return [channels.atoms for label in labels for channels in parts(label)]


def widths_for_speedup(
    model: MacModel, groups: Sequence[Group], chosen: Sequence[int], speedup: float, rounding: Rounding
) -> NDArray[np.int64]:
    """Units kept per group, so that the MAC speed-up is the nearest feasible one at or above the target.

    The smallest uniform ratio that reaches the target is found by bisection; then each group, the one whose step
    is worth most first, takes one step back where the target still holds. Where that leaves more than 1 % of the
    MACs unused, since steps are coarse, groups trade steps.

    Args:
        model: MACs of the program.
        groups: all prunable groups.
        chosen: positions of those that may be pruned.
        speedup: dense MACs over pruned MACs, above 1.
        rounding: of the widths.

    Raises:
        UsageError: the target can't be reached; says how far it goes.
    """
    counts = np.array([group.count for group in groups], dtype=np.int64)
    budget = model.macs(counts) / speedup

    def at(ratio: Fraction) -> NDArray[np.int64]:
        kept = counts.copy()
        for position in chosen:
            kept[position] = rounding.kept(groups[position], ratio)
        return kept

    low, high = Fraction(0), 1 - Fraction(1, 2**_BISECTIONS)
    most = model.macs(at(high))
    if most > budget:
        largest = floor(100 * model.macs(counts) / most) / 100  # rounded down, so that it can be asked for
        raise UsageError(
            f"A speed-up of {speedup:g}x in MACs can't be reached: the largest is {largest:.2f}x.",
            hint="Lower the target, let more layers be pruned, or lower round_to or min_channels.",
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if model.macs(at(middle)) <= budget else (middle, high)
    kept = _step_back(model, groups, at(high), at(low), budget, rounding)
    return _trade_steps(model, groups, chosen, kept, budget, rounding)


def _step_back(
    model: MacModel,
    groups: Sequence[Group],
    kept: NDArray[np.int64],
    above: NDArray[np.int64],
    budget: float,
    rounding: Rounding,
) -> NDArray[np.int64]:
    """Give back one step in every group where the budget still holds, the most expensive steps first."""

    def stepped(position: int) -> NDArray[np.int64]:
        wider = kept.copy()
        wider[position] = rounding.round_up(groups[position], int(kept[position]) + 1)
        return wider

    candidates = np.flatnonzero(above > kept).tolist()
    for position in sorted(candidates, key=lambda p: (-model.macs(stepped(p)), p)):
        wider = stepped(position)
        if model.macs(wider) <= budget:
            kept = wider
    return kept


def _trade_steps(
    model: MacModel,
    groups: Sequence[Group],
    chosen: Sequence[int],
    kept: NDArray[np.int64],
    budget: float,
    rounding: Rounding,
) -> NDArray[np.int64]:
    """Where steps are coarse, narrow one group by a step and widen another, as long as that nears the budget."""

    def trades() -> Iterator[NDArray[np.int64]]:
        for narrower in chosen:
            step = rounding.step(groups[narrower])
            less = (int(kept[narrower]) - 1) // step * step
            if less < rounding.round_up(groups[narrower], 1):
                continue
            for wider in chosen:
                if wider != narrower and kept[wider] < groups[wider].count:
                    trade = kept.copy()
                    trade[narrower] = less
                    trade[wider] = rounding.round_up(groups[wider], int(kept[wider]) + 1)
                    yield trade

    while model.macs(kept) < (1 - _CLOSE_ENOUGH) * budget:
        feasible = [trade for trade in trades() if model.macs(kept) < model.macs(trade) <= budget]
        if not feasible:
            break
        kept = max(feasible, key=model.macs)
    return kept
