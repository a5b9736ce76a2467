"""The criterion of connection sensitivity."""

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
class Snip:
    """Connection sensitivity |dL/dc| of a weight, with c = 1 a factor on it, over the sum of those of all weights (Lee,
    Ajanthan and Torr, "SNIP", ICLR 2019).

    The paper prunes before any training, by one batch: the gradient is that of the mean loss over all batches, as if
    they were one. A unit has the sum over its weights, and all are ranked together.

    After SNIP as read by prunec: sensitivities are those of the weights as they are, of which the released code draws
    new ones first. All weights of two and more dimensions count in the sum.
    """

    name: ClassVar[str] = "snip"
    paper: ClassVar[str] = "Lee et al., SNIP, ICLR 2019"
    reading: ClassVar[str] = (
        "after SNIP as read by prunec: sensitivities are those of the weights as they are, summed over a unit, with "
        "the task's own loss."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    statistics: ClassVar[tuple[Statistic, ...]] = (WeightGradient("mean"),)
    comparable: ClassVar[bool] = True

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """Sum over the weights of each unit, as a share of all weights'."""
        from prunec.passes.criteria.saliency import total_saliency, unit_saliencies

        return unit_saliencies(group, evidence) / (evidence.once(total_saliency) or 1.0)

    def score_elements(self, weight: "Tensor", evidence: "Evidence") -> "Tensor":
        """Sensitivity of each weight, as a share of all weights'."""
        from prunec.passes.criteria.saliency import saliencies, total_saliency

        return saliencies(weight, evidence.of(WeightGradient("mean"))) / (evidence.once(total_saliency) or 1.0)
