"""What residual branches are worth: shares of the importance of the groups that their layers give filters to."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.importance import check_finite, layer_counts, normalised, scores_of
from prunec.passes.allocation.space import Widths
from prunec.passes.branches import Branch, find_branches
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import ScoresUnits
from prunec.passes.groups import Group
from prunec.passes.program import Program
from prunec.passes.ratios import matches

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Worth:
    """The importance of a program's units, divided among the layers whose filters they are.

    Each layer that gives a group filters has a share of the group's normalised scores: what the criterion gives its
    filters alone, over the sum of that of all of them. Groups that stay whole have importance, too: what is in a branch
    is lost with it. Arrays of groups hold all of them, first those that could be pruned.

    Attributes:
        slices: Of each slice of the tensors that hold filters, by tensor name and dimension, its group, int64 (K,), and
            its importance, float64 (K,).
        readers: How many nodes of the program's graph read each tensor.
        is_chosen: Which groups may lose units, bool (groups,).
        layers: Layers that give each group filters, int64 (groups,).
    """

    slices: Mapping[tuple[str, int], tuple[NDArray[np.int64], NDArray[np.float64]]]
    readers: Mapping[str, int]
    is_chosen: NDArray[np.bool_]
    layers: NDArray[np.int64]

    @classmethod
    def of(cls, program: Program, criterion: ScoresUnits, allocator: Allocator, evidence: Evidence) -> "Worth":
        """The worth of the units of a program, which an allocator was prepared for.

        Raises:
            UsageError: The criterion gives something else than a finite number for each unit.
        """
        coupling = allocator.scope.coupling
        groups = (*coupling.groups, *coupling.frozen)
        slices: dict[tuple[str, int], tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        for place, group in enumerate(groups):
            worth = normalised(_scores(criterion, group, evidence))
            for position, share in zip(group.producers, _shares(criterion, group, evidence), strict=True):
                member, units = group.members[position], group.slices[position]
                length = evidence.tensors[member.parameter].shape[member.dim]
                none = np.zeros(length, dtype=np.int64), np.zeros(length)
                owners, of_slices = slices.setdefault((member.parameter, member.dim), none)
                owners[units] = place
                of_slices[units] += worth[:, None] * share / member.slices_per_unit
        is_chosen = np.isin(np.arange(len(groups)), allocator.scope.positions)
        return cls(slices, _readers(program), is_chosen, layer_counts(groups, allocator.workload))

    @cached_property
    def whole(self) -> NDArray[np.float64]:
        """The importance of each group of the whole program, float64 (groups,)."""
        sums = [self._by_group(owners, worth) for owners, worth in self.slices.values()]
        return np.asarray(np.sum([np.zeros(len(self.layers)), *sums], axis=0))

    def kept(self, left: Program, allocator: Allocator | None = None, widths: Widths | None = None) -> Floats:
        """The importance of what stays of each group, float64 (groups,).

        A tensor that several calls read goes with branches in equal parts. Units with the lowest scores go first.

        Args:
            left: The program without the branches that go.
            allocator: What is prepared for it; None where none of its units go.
            widths: The widths that it is given.
        """
        stays, kept = self._stays(left), {key: worth.copy() for key, (_, worth) in self.slices.items()}
        if allocator is not None and widths is not None:
            for position, scores in allocator.scores.items():
                group = allocator.scope.coupling.groups[position]
                units = np.argsort(scores, kind="stable")[: group.count - int(widths[position])]
                for producer in group.producers:
                    member = group.members[producer]
                    kept[member.parameter, member.dim][group.slices[producer][units].ravel()] = 0
        sums = [self._by_group(self.slices[key][0], worth) * stays[key[0]] for key, worth in kept.items()]
        return np.asarray(np.sum([np.zeros(len(self.layers)), *sums], axis=0))

    def share(self, kept: Floats) -> float:
        """Share of all importance that is lost; what groups that stay whole lose with a branch counts as part of it."""
        lost = self.whole - kept
        total = self.whole[self.is_chosen].sum() + lost[~self.is_chosen].sum()
        return float(lost.sum() / total) if total else 0.0

    def lost_in_sum(self, kept: Floats) -> float:
        """The importance that is lost."""
        return float((self.whole - kept).sum())

    def lost_in_product(self, kept: Floats) -> float:
        """What is lost of the product over layers of the share that each keeps, as its -log (`Importance.in_product`).

        A group all of whose layers are gone counts nothing: what they computed is missing in the sum that their branch
        added to, which loses its part of that.
        """
        is_left = kept > 0
        return float(-(self.layers[is_left] * np.log(kept[is_left] / self.whole[is_left])).sum())

    def _by_group(self, owners: NDArray[np.int64], worth: Floats) -> Floats:
        sums: Floats = np.bincount(owners, worth, len(self.layers)).astype(np.float64)
        return sums

    def _stays(self, left: Program) -> dict[str, float]:
        """The part of each tensor's reads that is left."""
        readers = _readers(left)
        return {name: readers.get(name, 0) / count for name, count in self.readers.items() if count}


def removable_branches(program: Program, kept_whole: Sequence[str] = ()) -> Iterator[Branch]:
    """The branches of a program that may go for a goal: no shortcuts, and none with a layer that a glob matches."""
    for branch in find_branches(program):
        if not branch.is_shortcut and not matches(branch.layers, kept_whole):
            yield branch


def _readers(program: Program) -> dict[str, int]:
    """How many nodes read each tensor, under whichever of its names."""
    tensors, readers = program.tensors(), Counter[int]()
    for node in program.graph.find_nodes(op="get_attr"):
        readers[id(tensors[str(node.target)])] += len(node.users)
    return {name: readers[id(tensor)] for name, tensor in tensors.items()}


def _scores(criterion: ScoresUnits, group: Group, evidence: Evidence) -> NDArray[np.float64]:
    scores = scores_of(criterion, group, evidence)
    check_finite(criterion, group, scores)
    return scores.astype(np.float64)


def _shares(criterion: ScoresUnits, group: Group, evidence: Evidence) -> NDArray[np.float64]:
    """The share of a group's importance that each of its producers has, float64 (producers,).

    Scores are those of the group with that producer alone, times its slices, since criteria score a unit by the mean of
    its filters. Where they tell nothing apart the slices do.
    """
    alone = [_scores(criterion, _with_producer(group, position), evidence) for position in group.producers]
    least = min(0.0, *(float(scores.min()) for scores in alone))
    counts = np.array([group.members[position].slices_per_unit for position in group.producers], dtype=np.float64)
    amounts = counts * np.array([(scores - least).sum() for scores in alone])
    amounts = amounts if amounts.any() else counts
    shares: NDArray[np.float64] = amounts / amounts.sum()
    return shares


def _with_producer(group: Group, producer: int) -> Group:
    """A group as it is without the filters of other layers."""
    others = set(group.producers) - {producer}
    stays = [position for position in range(len(group.members)) if position not in others]
    slices = tuple(group.slices[position] for position in stays)
    return replace(group, members=tuple(group.members[position] for position in stays), slices=slices)
