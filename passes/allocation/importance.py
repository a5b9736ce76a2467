"""Scores of units, and what of the importance of all of them is lost at some widths.

Groups are compared by their scores over the scores' Euclidean norm, so that neither a layer's scale nor how a criterion
grows with a layer's size decides. Scores of a group of which some are negative count from the least one. Criteria whose
scores are in one unit (`compares_groups`) are compared as they are, from the least one of all groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.costs.workload import Workload
from prunec.passes.criteria.catalogue import blame
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import Criterion, ScoresUnits, compares_groups
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group

#: Units named in an error.
_NAMED = 4
#: Share of a group's importance that counts as kept where its best units have none.
_LEAST_KEPT = 1e-9
#: The scores of each unit of groups, by the position of the group; float64 (count,).
GroupScores = Mapping[int, NDArray[Any]]


def scores_of(criterion: ScoresUnits, group: Group, evidence: Evidence) -> NDArray[Any]:
    """The scores of a group's units, (count,).

    Raises:
        UsageError: The criterion gives something else than a number for each unit.
    """
    with blame(criterion):
        scores = as_array(criterion.score(group, evidence))
    if scores.shape != (group.count,) or scores.dtype.kind not in "fiu":
        raise UsageError(
            f"The criterion {criterion.name} scores the group {group.name} by {scores.dtype} {list(scores.shape)}: "
            f"expected a number for each of its {group.count} units."
        )
    if np.isnan(scores).any():
        units = some(np.flatnonzero(np.isnan(scores)).tolist())
        raise UsageError(f"The criterion {criterion.name} scores units {units} of the group {group.name} by NaN.")
    return scores


def check_finite(criterion: Criterion, group: Group, scores: NDArray[Any]) -> None:
    """Refuse scores that can't be compared with those of other groups.

    Raises:
        UsageError: A score is not finite.
    """
    if not np.isfinite(scores).all():
        raise UsageError(
            f"The criterion {criterion.name} gives units of the group {group.name} scores that are not finite: groups "
            "can't be compared by them.",
            hint="allocation=uniform without depth compares units within their group only.",
        )


def as_array(given: object) -> NDArray[Any]:
    """What a criterion gives, as NumPy holds it."""
    if not isinstance(given, Tensor):
        return np.asarray(given)
    values = given.detach().cpu()  # NumPy has no bfloat16
    return (values.double() if values.is_floating_point() else values).numpy()


def some(names: Sequence[object]) -> str:
    """The first names of many."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more


@dataclass(frozen=True, eq=False)
class Importance:
    """The normalised scores of groups.

    Attributes:
        counts: Units of each group, int64 (groups,).
        layers: Layers that give each group filters, int64 (groups,).
        ranked: Normalised scores of each group's units, ascending, by the group's position; float64 (count,).
    """

    counts: NDArray[np.int64]
    layers: NDArray[np.int64]
    ranked: Mapping[int, NDArray[np.float64]]

    @classmethod
    def of(cls, criterion: Criterion, groups: Sequence[Group], scores: GroupScores, workload: Workload) -> "Importance":
        """The importance by these scores.

        Raises:
            UsageError: A score is not finite, so that it can't be compared with those of other groups.
        """
        for position, values in scores.items():
            check_finite(criterion, groups[position], values)
        numbers = {position: np.sort(values.astype(np.float64)) for position, values in scores.items()}
        ranked = _from_the_least(numbers) if compares_groups(criterion) else _each_normalised(numbers)
        counts = np.array([group.count for group in groups], dtype=np.int64)
        return cls(counts, layer_counts(groups, workload), ranked)

    @cached_property
    def in_sum(self) -> "Losses":
        """The share of the importance of all units that is lost with those that go."""
        lost = self._without_least()
        total = float(lost.max(axis=1, initial=0.0).sum())
        return Losses(self.counts, lost / total if total else lost)

    @cached_property
    def in_product(self) -> "Losses":
        """What is lost of the product over layers of the share of its importance that each keeps, as its -log.

        What a layer loses is missing in all layers behind it, so shares multiply; a group counts once for each layer
        that gives it filters.
        """
        lost = self._without_least()
        whole = lost.max(axis=1, initial=0.0, keepdims=True)
        kept = 1 - np.divide(lost, whole, out=np.zeros_like(lost), where=whole > 0)
        return Losses(self.counts, -self.layers[:, None] * np.log(np.maximum(kept, _LEAST_KEPT)))

    def _without_least(self) -> NDArray[np.float64]:
        """Importance of the r least units of each group, float64 (groups, widest + 1)."""
        lost = np.zeros((len(self.counts), int(self.counts.max(initial=0)) + 1))
        for position, ranked in self.ranked.items():
            lost[position, 1 : len(ranked) + 1] = np.cumsum(ranked)
        return lost


@dataclass(frozen=True, eq=False)
class Losses:
    """What is lost at some widths, a sum over groups.

    Attributes:
        counts: Units of each group, int64 (groups,).
        table: What each group loses with its r least units, float64 (groups, widest + 1).
    """

    counts: NDArray[np.int64]
    table: NDArray[np.float64]

    def lost(self, kept: NDArray[np.int64]) -> NDArray[np.float64]:
        """What is lost with the units that go, float64 (...,) of (..., groups)."""
        losses: NDArray[np.float64] = self.by_group(kept).sum(axis=-1)
        return losses

    def by_group(self, kept: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each group loses, float64 (..., groups)."""
        return self.at(np.arange(len(self.counts)), kept)

    def at(self, positions: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """What groups at some positions lose at some widths."""
        losses: NDArray[np.float64] = self.table[positions, self.counts[positions] - widths]
        return losses


def layer_counts(groups: Sequence[Group], workload: Workload) -> NDArray[np.int64]:
    """Layers that give each group filters, int64 (groups,).

    A grouped convolution, whose channels go with those that it reads, loses nothing besides; at least one layer counts.
    """
    grouped = {operation.weight for operation in workload.operations if operation.is_grouped}
    names = ([group.members[position].parameter for position in group.producers] for group in groups)
    return np.array([max(sum(name not in grouped for name in each), 1) for each in names], dtype=np.int64)


def _each_normalised(scores: GroupScores) -> dict[int, NDArray[np.float64]]:
    return {position: normalised(values) for position, values in scores.items()}


def _from_the_least(scores: GroupScores) -> dict[int, NDArray[np.float64]]:
    """Scores in one unit, from the least of all where some are negative."""
    least = min((float(values.min(initial=0.0)) for values in scores.values()), default=0.0)
    return {position: values - least for position, values in scores.items()}


def normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores over their Euclidean norm, float64 (count,); from the least one where some are negative."""
    scores = scores - min(0.0, float(scores.min(initial=0.0)))
    largest = float(scores.max(initial=0.0))
    if not largest:
        return scores
    scaled = scores / largest  # so that squares neither overflow nor vanish
    return scaled / float(np.linalg.norm(scaled))
