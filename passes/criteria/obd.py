"""Optimal Brain Damage: single weights by the diagonal of the loss's second derivatives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Statistic
from prunec.passes.criteria.statistics import WeightGradient

if TYPE_CHECKING:
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence

_FISHER = WeightGradient("square", "sample")


@dataclass(frozen=True)
class OBD:
    """Second-order change of the loss by zeroing a weight, h_kk w_k^2 / 2 (LeCun, Denker, Solla, NIPS 1989).

    After LeCun et al. as read by prunec: the network has converged, so that the mean gradient counts for nothing, and
    h_kk is the mean square of the weight's gradients by sample, the diagonal of the empirical Fisher information, in
    place of their recursion of second derivatives through the layers. For the loss of a likelihood the two have one
    mean where the network is the true model. Scores of all layers have one unit.

    It costs a forward and a backward pass of each of the step's ``samples``, one sample at a time, and holds one number
    of 8 bytes for each weight.
    """

    name: ClassVar[str] = "obd"
    paper: ClassVar[str] = "LeCun, Denker and Solla, Optimal Brain Damage, NIPS 1989"
    reading: ClassVar[str] = (
        "as read by prunec: the mean square of each sample's gradient stands for the diagonal of second derivatives"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    statistics: ClassVar[tuple[Statistic, ...]] = (_FISHER,)

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """Half of h_kk w_k^2, float64."""
        diagonal: Tensor = evidence.of(_FISHER)
        return diagonal * weight.double().square() / 2
