"""Criteria that look at weights alone, and chance."""

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class _ByWeights:
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})


@dataclass(frozen=True)
class L1(_ByWeights):
    """Sum of absolute weights (Li et al., ICLR 2017)."""

    name: ClassVar[str] = "l1"
    paper: ClassVar[str] = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017"

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Mean of the norms of the filters that go with a unit."""
        from prunec.passes.criteria.units import l1_norms, mean_norms

        return mean_norms(group, evidence.tensors, l1_norms)


@dataclass(frozen=True)
class L2(_ByWeights):
    """Euclidean norm of the weights (He et al., IJCAI 2018)."""

    name: ClassVar[str] = "l2"
    paper: ClassVar[str] = "He et al., Soft Filter Pruning, IJCAI 2018"

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Mean of the norms of the filters that go with a unit."""
        from prunec.passes.criteria.units import l2_norms, mean_norms

        return mean_norms(group, evidence.tensors, l2_norms)


@dataclass(frozen=True)
class Random(_ByWeights):
    """Chance: the control for every other criterion. It draws for each group, or weight, from its name and the seed."""

    name: ClassVar[str] = "random"
    paper: ClassVar[str] = "Le and Hua, Network Pruning That Matters, ICLR 2021"

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The same numbers for a group whatever else is pruned."""
        return _generator(evidence.seed, group.name).random(group.count)

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """The same numbers for a weight whatever else is masked, drawn from its name and the seed."""
        import torch

        return torch.from_numpy(_generator(evidence.seed, evidence.layer or "").random(tuple(weight.shape)))


def _generator(seed: int, name: str) -> "np.random.Generator":
    import numpy as np

    return np.random.default_rng([seed, zlib.crc32(name.encode())])
