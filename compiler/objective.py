"""What training minimises and what accuracy means: cross-entropy and top-1, or the user's own."""

from dataclasses import dataclass

from torch.nn.functional import cross_entropy

from prunec.compiler.recovery.recover import Loss
from prunec.runtime.evaluate import Metric, top1


@dataclass(frozen=True)
class Objective:
    """Loss and metric, with the names under which the report speaks of them.

    Attributes:
        loss: (outputs, labels) -> scalar tensor.
        metric: (outputs, labels) -> score of each sample (N,), 0 to 1.
        loss_name: "cross-entropy", or ``module:callable``.
        metric_name: "top1", or ``module:callable``.
    """

    loss: Loss = cross_entropy
    metric: Metric = top1
    loss_name: str = "cross-entropy"
    metric_name: str = "top1"
