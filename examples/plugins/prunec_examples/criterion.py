"""A criterion that looks at gradients: what the loss changes by, in first order, where a unit goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from prunec.passes.criteria import GateGradient
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunec.passes.criteria import Evidence
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class GateChange:
    """Squared first-order change of the loss by a unit, of batches or of single samples (Molchanov et al., CVPR 2019).

    Attributes:
        per: Whether gradients are those of a batch's loss, or those of each sample's own.
    """

    per: Literal["batch", "sample"] = "batch"

    name: ClassVar[str] = "gate-change"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    places: ClassVar[Mapping[str, str]] = {"per": METHOD}

    @property
    def statistics(self) -> tuple[GateGradient]:
        """What is measured on the data."""
        return (GateGradient("square", self.per),)

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The worth of each unit, float64 (group.count,)."""
        scores: NDArray[np.float64] = evidence.of(self.statistics[0], group).double().numpy()
        return scores
