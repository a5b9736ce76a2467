"""The training hook "gal". Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, check_positive
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class Gal(TrainingHook):
    """Generative adversarial learning of soft masks, without labels (Lin et al., CVPR 2019).

    The network, with a soft mask on the units that can be pruned, learns to give what the dense network gives: by their
    squared difference, and by deceiving a discriminator that learns to tell the two by their outputs. An L1 penalty
    draws masks to zero, by FISTA: a step of the gradient, soft thresholding, nothing below zero.

    After the paper, as read by prunec: masks stand on all weights that read a filter, and not on whole blocks;
    discriminator and network both take a step on every batch. The label loss has no part, and neither has what
    hooks before this one add to it. Masks take a step every 200 of the 39,100 steps that the paper trains on
    CIFAR-10, or as large a share of this training, and the sum of their rates is the paper's at any length and
    schedule. Where zeros keep the budget of the pruning behind the training, the threshold is lowered to that; in
    the last step it is set to it, and the report says what the penalty alone gave. Units that stay have a mask of a
    thousandth at least. At the end masks are merged into what makes the units, the scales of norms where there are
    such, and else into what reads them: filters in front of a norm that shrink would learn faster from then on.

    Attributes:
        sparsity: Strength of the penalty on masks.
        imitation: Weight of the squared difference of the outputs.
        rate: Learning rate of masks and discriminator where that of the training is highest.
    """

    sparsity: float = 0.6
    imitation: float = 1.0
    rate: float = 1e-2

    name: ClassVar[str] = "gal"
    paper: ClassVar[str] = "Lin et al., Generative Adversarial Learning for Pruning, CVPR 2019"
    reading: ClassVar[str] = (
        "after GAL as read by prunec: masks on the weights that read a filter and not on blocks; network and "
        "discriminator take a step on every batch; the rates of the masks' steps have the paper's sum at any length; "
        "the last threshold is set to the budget"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {"sparsity": METHOD, "imitation": METHOD, "rate": METHOD}

    def __post_init__(self) -> None:
        check_positive(self, "sparsity", "imitation", "rate")

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """One ranking of all filters chooses the widths."""
        check_filters_ahead(self, pruning, ranked=True)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_gal import RunningGal

        return RunningGal(training, self)
