"""Choose widths for a target speed-up in MACs: one ratio everywhere, then single steps back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.cost import call_macs, recurrent_products, weighted_calls
from prunec.passes.coupling import Coupling, Group
from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, calls, operator_name
from prunec.passes.labels import Atoms, parts
from prunec.passes.operators import RECURRENT, WEIGHTED
from prunec.passes.products import WeightProduct, products
from prunec.passes.program import Program
from prunec.passes.ratios import Rounding

_BISECTIONS = 40
#: Share of the budget that may be left over.
_CLOSE_ENOUGH = 0.01


@dataclass(frozen=True)
class MacModel:
    """MACs of a program as a function of the units kept per group: a sum of products of affine functions.

    Attributes:
        scale: Factor of each layer that no group changes, float64 (layers,).
        slopes: Channels per kept unit for each factor, float64 (factors, groups).
        constants: Channels of each factor that stay anyway, float64 (factors,).
        starts: Position of each layer's first factor, int64 (layers,).
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
        for macs, labels in _terms(program, coupling):
            starts.append(len(slopes))
            size = 1.0
            for label in labels:
                owners = coupling.group_of_root[coupling.roots[label]]
                per_group = np.bincount(owners + 1, minlength=len(counts) + 1)
                slopes.append(per_group[1:] / counts)
                constants.append(float(per_group[0]))
                size *= len(label)
            slopes.append(np.zeros(len(counts)))  # so that every layer has a factor
            constants.append(1.0)
            scale.append(macs / size)
        return cls(np.array(scale), np.array(slopes), np.array(constants), np.array(starts))

    def macs(self, kept: NDArray[np.int64]) -> float:
        """MACs for one sample with ``kept`` units in each group, int64 (groups,)."""
        sizes = self.slopes @ kept + self.constants
        return float(self.scale @ np.multiply.reduceat(sizes, self.starts))


def _terms(program: Program, coupling: Coupling) -> Iterator[tuple[int, list[Atoms]]]:
    """MACs of every use of a weight, and the labels whose sizes multiply into them."""
    for node, _ in weighted_calls(program.graph):
        yield call_macs(node), _factors(coupling, node)
    for product in products(program.graph):
        if isinstance(product, WeightProduct):
            summed = [
                label
                for letter, label in zip(product.term, coupling.ties.of(product.weight), strict=True)
                if letter not in product.output
            ]
            labels = [*coupling.ties.of(product.node), *summed]
            yield product.macs(), [channels.atoms for label in labels for channels in parts(label)]
    for node in calls(program.graph, *RECURRENT):  # they stay whole
        for _, matrix, steps in recurrent_products(node):
            yield steps * math.prod(matrix.meta["sample_shapes"]), []


def _factors(coupling: Coupling, node: Node) -> list[Atoms]:
    """Labels whose sizes multiply into a layer's MACs: those of its output and of the inputs it sums over."""
    bound, labels = arguments(node), [*coupling.ties.of(node)]
    if not WEIGHTED[operator_name(node.target)].is_transposed:
        labels.append(coupling.ties.of(bound["weight"])[1])
    elif bound["groups"] == 1:  # dimension 0 holds the inputs of all groups, and an output sums over those of one
        labels.append(coupling.ties.of(bound["weight"])[0])
    return [channels.atoms for label in labels for channels in parts(label)]


def widths_for_speedup(
    model: MacModel, groups: Sequence[Group], chosen: Sequence[int], speedup: float, rounding: Rounding
) -> NDArray[np.int64]:
    """Choose the units kept per group so that the MAC speed-up is the nearest feasible one at or above the target.

    Bisection gives the smallest uniform ratio that reaches the target. Then each group, the one whose step is worth
    most first, takes one step back where the target still holds. Where that leaves more than 1 % of the MACs unused,
    since steps are coarse, groups trade steps.

    Args:
        model: MACs of the program.
        groups: All prunable groups.
        chosen: Positions of the groups that may be pruned.
        speedup: Dense MACs over pruned MACs, at least 1.
        rounding: Rounding of the widths.

    Raises:
        UsageError: The target can't be reached; the message says which speed-up can.
    """
    dense = model.macs(np.array([group.count for group in groups], dtype=np.int64))
    search = _Search(model, groups, chosen, rounding, budget=dense / speedup)
    low, high = Fraction(0), 1 - Fraction(1, 2**_BISECTIONS)
    least = model.macs(search.at(high))
    if least > search.budget:
        largest = floor(100 * dense / least) / 100  # rounded down, so that it can be asked for
        raise UsageError(
            f"A speed-up of {speedup:g}x in MACs can't be reached: the largest is {largest:.2f}x.",
            hint="Lower the target, let more layers be pruned, or lower round_to or min_channels.",
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if model.macs(search.at(middle)) <= search.budget else (middle, high)
    return search.trade_steps(search.step_back(search.at(high), search.at(low)))


@dataclass(frozen=True, eq=False)
class _Search:
    """Steps towards the largest widths whose MACs are within the budget; widths are int64 (groups,)."""

    model: MacModel
    groups: Sequence[Group]
    chosen: Sequence[int]
    rounding: Rounding
    budget: float

    def at(self, ratio: Fraction) -> NDArray[np.int64]:
        kept = np.array([group.count for group in self.groups], dtype=np.int64)
        for position in self.chosen:
            kept[position] = self.rounding.kept(self.groups[position], ratio)
        return kept

    def wider(self, kept: NDArray[np.int64], position: int) -> NDArray[np.int64]:
        """The widths with one step more in one group."""
        wider = kept.copy()
        wider[position] = self.rounding.round_up(self.groups[position], int(kept[position]) + 1)
        return wider

    def step_back(self, kept: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give back one step in every group where the budget still holds, the most expensive steps first."""
        gains = {p: self.model.macs(self.wider(kept, p)) for p in np.flatnonzero(above > kept).tolist()}
        for position in sorted(gains, key=lambda p: (-gains[p], p)):
            wider = self.wider(kept, position)
            if self.model.macs(wider) <= self.budget:
                kept = wider
        return kept

    def trade_steps(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Narrow one group by a step and widen another, as long as that nears the budget where steps are coarse."""
        macs = self.model.macs
        while macs(kept) < (1 - _CLOSE_ENOUGH) * self.budget:
            feasible = [trade for trade in self._trades(kept) if macs(kept) < macs(trade) <= self.budget]
            if not feasible:
                break
            kept = max(feasible, key=macs)
        return kept

    def _trades(self, kept: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for narrower in self.chosen:
            step = self.rounding.step(self.groups[narrower])
            less = (int(kept[narrower]) - 1) // step * step
            if less < self.rounding.round_up(self.groups[narrower], 1):
                continue
            for wider in self.chosen:
                if wider != narrower and kept[wider] < self.groups[wider].count:
                    trade = self.wider(kept, wider)
                    trade[narrower] = less
                    yield trade
