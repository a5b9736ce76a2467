"""The criterion of a filter's largest weight."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class LargestWeight:
    """Largest absolute weight of a filter (a control of Le and Hua, "Network Pruning That Matters", ICLR 2021)."""

    name: ClassVar[str] = "max"
    paper: ClassVar[str] = "Le and Hua, Network Pruning That Matters, ICLR 2021"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Mean over the filters that go with a unit of the largest absolute weight of each."""
        from prunec.passes.criteria.units import mean_norms

        return mean_norms(group, evidence.tensors, lambda filters: filters.abs().amax(1).double())
