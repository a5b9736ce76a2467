"""What residual branches are worth: shares of the importance of the groups that their layers give filters to."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.importance import check_finite, normalised, scores_of
from prunec.passes.allocation.space import Widths
from prunec.passes.branches import Branch, find_branches
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import ScoresUnits
from prunec.passes.groups import Group
from prunec.passes.program import Program
from prunec.passes.ratios import matches


@dataclass(frozen=True, eq=False)
class Worth:
    """The importance of a program's units, divided among the layers whose filters they are.

    Each layer that gives a group filters has a share of the group's normalised scores: what the criterion gives its
    filters alone, over the sum of that of all of them. Groups that stay whole have importance, too: what is in a branch
    is lost with it.

    Attributes:
        slices: Importance of each slice of the tensors that hold filters, by tensor name and dimension, float64 (2, K):
            in groups that may lose units, and in others.
        readers: How many nodes of the program's graph read each tensor.
        total: The importance of the groups that may lose units.
    """

    slices: Mapping[tuple[str, int], NDArray[np.float64]]
    readers: Mapping[str, int]
    total: float

    @classmethod
    def of(cls, program: Program, criterion: ScoresUnits, allocator: Allocator, evidence: Evidence) -> "Worth":
        """The worth of the units of a program, which an allocator was prepared for.

        Raises:
            UsageError: The criterion gives something else than a finite number for each unit.
        """
        coupling, chosen = allocator.scope.coupling, set(allocator.scope.positions)
        slices: dict[tuple[str, int], NDArray[np.float64]] = {}
        for place, group in enumerate((*coupling.groups, *coupling.frozen)):
            worth, row = normalised(_scores(criterion, group, evidence)), 0 if place in chosen else 1
            for position, share in zip(group.producers, _shares(criterion, group, evidence), strict=True):
                member = group.members[position]
                length = evidence.tensors[member.parameter].shape[member.dim]
                of_slices = slices.setdefault((member.parameter, member.dim), np.zeros((2, length)))
                of_slices[row, group.slices[position]] += worth[:, None] * share / member.slices_per_unit
        total = sum(float(of_slices[0].sum()) for of_slices in slices.values())
        return cls(slices, _readers(program), total)

    def gone(self, left: Program) -> NDArray[np.float64]:
        """What is lost with branches, in groups that may lose units and in others, float64 (2,).

        A tensor that several calls read goes with them in equal parts.

        Args:
            left: The program without the branches.
        """
        stays = self._stays(left)
        lost = [of_slices.sum(axis=1) * (1 - stays[name]) for (name, _), of_slices in self.slices.items()]
        total: NDArray[np.float64] = np.sum([np.zeros(2), *lost], axis=0)
        return total

    def cut(self, left: Program, allocator: Allocator, widths: Widths) -> NDArray[np.float64]:
        """What is lost besides at some widths of what is left, float64 (2,); units with the lowest scores go first."""
        stays, lost = self._stays(left), np.zeros(2)
        for position, scores in allocator.scores.items():
            group = allocator.scope.coupling.groups[position]
            units = np.argsort(scores, kind="stable")[: group.count - int(widths[position])]
            for producer in group.producers:
                member, of_units = group.members[producer], group.slices[producer][units].ravel()
                of_slices = self.slices[member.parameter, member.dim]
                lost += of_slices[:, of_units].sum(axis=1) * stays[member.parameter]
        return lost

    def share(self, lost: NDArray[np.float64]) -> float:
        """Share of all importance; what groups that stay whole lose with a branch counts as part of it."""
        whole = self.total + float(lost[1])
        return float(lost.sum()) / whole if whole else 0.0

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
