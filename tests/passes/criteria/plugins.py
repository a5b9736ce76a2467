"""Criteria of every kind, as packages outside prunec would write them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.criteria import Activation, Evidence, GateGradient, Statistic, WeightGradient
from prunec.passes.criteria.units import unit_means
from prunec.passes.groups import Group

WEIGHTS = frozenset({"weights"})


@dataclass(frozen=True)
class FirstOrder:
    """Squared first-order change of the loss by a unit (Molchanov et al., CVPR 2019)."""

    absolute: bool = False

    name: ClassVar[str] = "first-order"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        return (GateGradient("absolute" if self.absolute else "square"),)

    def score(self, group: Group, evidence: Evidence) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = evidence.of(self.statistics[0], group).numpy()
        return scores


@dataclass(frozen=True)
class Apoz:
    """Filters whose activations are rarely zero stay."""

    name: ClassVar[str] = "apoz"
    needs: ClassVar[frozenset[str]] = frozenset({"outputs"})
    statistics: ClassVar[tuple[Statistic, ...]] = (Activation("zeros"),)

    def score(self, group: Group, evidence: Evidence) -> NDArray[np.float64]:
        return unit_means(group, lambda member: 1 - evidence.of(Activation("zeros"), member.parameter))


@dataclass(frozen=True)
class Snip:
    """|w dL/dw| of single weights (Lee et al., ICLR 2019)."""

    name: ClassVar[str] = "snip"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients"})
    statistics: ClassVar[tuple[Statistic, ...]] = (WeightGradient("mean"),)

    def score_elements(self, weight: Tensor, evidence: Evidence) -> Tensor:
        scores: Tensor = (weight * evidence.of(WeightGradient("mean"))).abs()
        return scores


@dataclass(frozen=True)
class Ends:
    """The first units and the last one: a set, no scores."""

    name: ClassVar[str] = "ends"
    needs: ClassVar[frozenset[str]] = WEIGHTS

    def select(self, group: Group, evidence: Evidence, count: int) -> NDArray[np.int64]:
        return np.array([group.count - 1, *range(count - 1)])


@dataclass(frozen=True)
class Louder:
    """The first units stay, and everything of theirs is multiplied."""

    factor: float = 2.0

    name: ClassVar[str] = "louder"
    needs: ClassVar[frozenset[str]] = WEIGHTS

    def score(self, group: Group, evidence: Evidence) -> NDArray[np.float64]:
        return -np.arange(group.count, dtype=np.float64)

    def compensate(self, group: Group, evidence: Evidence, kept: NDArray[np.int64]) -> Mapping[str, Tensor]:
        names = [group.members[position].parameter for position in group.producers]
        return {name: evidence.tensors[name] * self.factor for name in names}


@dataclass(frozen=True)
class Refit:
    """The largest weights stay, and carry the sum of each four."""

    name: ClassVar[str] = "refit"
    needs: ClassVar[frozenset[str]] = WEIGHTS

    def score_elements(self, weight: Tensor, evidence: Evidence) -> Tensor:
        return weight.abs()

    def compensate_elements(self, weight: Tensor, evidence: Evidence, mask: Tensor) -> Tensor:
        sums = weight.unflatten(1, (-1, 4)).sum(2, keepdim=True).expand(-1, -1, 4, *weight.shape[2:]).flatten(1, 2)
        return torch.where(mask, sums / 2, torch.zeros_like(weight))


@dataclass(frozen=True)
class Both:
    """A criterion of filters and of single weights."""

    name: ClassVar[str] = "both"
    needs: ClassVar[frozenset[str]] = WEIGHTS

    def score(self, group: Group, evidence: Evidence) -> NDArray[np.float64]:
        return np.arange(group.count, dtype=np.float64)

    def score_elements(self, weight: Tensor, evidence: Evidence) -> Tensor:
        return -weight.abs()
