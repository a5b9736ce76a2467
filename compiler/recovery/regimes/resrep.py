"""The training hook "resrep". Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, check_positive, check_share
from prunec.passes.errors import UsageError
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class ResRep(TrainingHook):
    """Compactors that forget filters while the network remembers (Ding et al., ICCV 2021).

    A 1x1 convolution, the identity at first, stands behind each layer that is pruned, behind its batch norm where it
    has one. All its rows have a group lasso on them; more and more rows of the least norm, of all layers together, lose
    the gradient of the loss, until the MACs of the pruning behind the training are kept. At the end the compactors are
    merged into the network's own layers exactly, rows of zeros with them.

    After the paper, as read by prunec: counts of iterations are shares of the training. Of 900,720 steps of ImageNet
    the first 5 of 180 epochs mask nothing, and then 4 filters of ResNet-50's 7,552 go every 200 steps, so that all
    would be gone after another 0.42 of the training. A masked row, on which the lasso acts alone, moves as far in a
    share of the training as in the paper's, and stops at zero; on the others the lasso is the paper's, since it is
    weighed against the gradient of the loss step by step. So in a short training rows have hardly moved when the first
    are masked, and the first gradients of the loss choose; in the paper's, 25,020 steps come before, in which the lasso
    alone would move a row by 2.5. Units whose filters come of several layers, as in residual streams, or to which a
    norm or bias adds behind that layer's own, have no compactor and stay; the others must keep the budget alone.

    Attributes:
        lasso: Strength of the group lasso.
        momentum: Momentum of the compactors' own SGD; its rate is the training's.
        begin: Share of the training after which rows are masked.
        growth: Share of the training in which the number of masked rows would grow from none to all.
    """

    lasso: float = 1e-4
    momentum: float = 0.99
    begin: float = 5 / 180
    growth: float = 0.42

    name: ClassVar[str] = "resrep"
    paper: ClassVar[str] = "Ding et al., ResRep, ICCV 2021"
    reading: ClassVar[str] = (
        "after ResRep as read by prunec: counts of steps are shares of the training (4 of ResNet-50's 7,552 filters "
        "each 200 of 900,720 steps); masked rows move by the lasso alone, as far in a share of the training as in the "
        "paper's; units that several layers make, or that something adds to behind their layer, have no compactor and "
        "stay"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {
        "lasso": METHOD, "momentum": METHOD, "begin": METHOD, "growth": METHOD,
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(self, "lasso")
        check_share(self, "growth")
        if not (0 <= self.momentum < 1 and 0 <= self.begin < 1):
            raise UsageError(f"{self.name}: momentum and begin must be at least 0 and below 1.")
        if self.begin + self.growth > 1:
            raise UsageError(
                f"{self.name}: begin and growth are shares of one training, got {self.begin + self.growth}."
            )

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """One ranking of all filters chooses the widths."""
        check_filters_ahead(self, pruning, ranked=True)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_resrep import RunningResRep

        return RunningResRep(training, self)
