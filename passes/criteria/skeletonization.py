"""The criterion of relevance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.criteria.protocol import Statistic
from prunec.passes.criteria.statistics import GateGradient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunec.passes.criteria.evidence import Evidence
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class Skeletonization:
    """Relevance -dE/dalpha of a unit, at alpha = 1 a factor on its outputs: what the error would grow by without it
    (Mozer and Smolensky, "Skeletonization", NIPS 1988).

    The least relevant units of the network go first, also those that the error would fall without. The paper trims
    few at a time and trains between.

    After skeletonization as read by prunec: E is the loss of the task, averaged over all batches in place of a moving
    average. The paper trains by the squared error and takes relevances of the linear error |t - o|, since the squared
    error's derivative vanishes with the square of what is left to the target. That of the cross entropy doesn't: of
    the outputs of a softmax, the linear error sums to 2 (1 - p) with p the probability of the right class, whose
    derivative is 2 p times that of the cross entropy -log p, so that where a network is right both rank alike.
    Where the task's own loss is the squared error, one of the linear error can be given as the objective's.
    """

    name: ClassVar[str] = "skeletonization"
    paper: ClassVar[str] = "Mozer and Smolensky, Skeletonization, NIPS 1988"
    reading: ClassVar[str] = (
        "after skeletonization as read by prunec: relevances are derivatives of the task's loss, averaged over all "
        "batches; of a cross entropy they are those of the linear error up to 2 p, where p is the probability of the "
        "right class."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"weights", "gradients", "labels"})
    statistics: ClassVar[tuple[Statistic, ...]] = (GateGradient("mean"),)
    comparable: ClassVar[bool] = True

    def score(self, group: "Group", evidence: "Evidence") -> "NDArray[np.float64]":
        """The relevance of each unit, negative where the loss would fall without it."""
        derivatives: Tensor = evidence.of(GateGradient("mean"), group)
        return -derivatives.cpu().numpy()
