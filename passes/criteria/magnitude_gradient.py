"""The criterion of weights times their gradients."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Statistic
from prunec.passes.criteria.statistics import WeightGradient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class MagnitudeGradient:
    """Magnitude of a weight times its gradient, |w dL/dw| (Blalock et al., "What is the State of Neural Network
    Pruning?", MLSys 2020, "global magnitude gradient").

    The gradient is that of the mean loss over all batches, as if they were one. A unit has the sum over its weights.
    """

    name: ClassVar[str] = "magnitude-gradient"
    paper: ClassVar[str] = "Blalock et al., What is the State of Neural Network Pruning?, MLSys 2020"
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    statistics: ClassVar[tuple[Statistic, ...]] = (WeightGradient("mean"),)
    comparable: ClassVar[bool] = True

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Sum over the weights of each unit."""
        from prunec.passes.criteria.saliency import unit_saliencies

        return unit_saliencies(group, evidence)

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """Magnitudes of weights times gradients."""
        from prunec.passes.criteria.saliency import saliencies

        return saliencies(weight, evidence.of(WeightGradient("mean")))
