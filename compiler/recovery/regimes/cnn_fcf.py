"""The training hook "cnn-fcf". Imports no torch."""

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
class CnnFcf(TrainingHook):
    """Compressing by factorized filters: each has a factor that is to be 0 or 1 (Li et al., CVPR 2019).

    The factors v of a group's n units, of which k are to stay, meet {0, 1}^n with sum k as a box and a sphere: by
    multipliers (ADMM) they are drawn to z1, the nearest point with 0 <= z <= 1 and sum k, and to z2, the nearest one on
    the sphere about 1/2 of radius sqrt(n) / 2, while the loss has a say by its own gradient. Widths are those that the
    pruning behind the training leaves.

    After the paper, as read by prunec: a factor stands on all weights that read a filter, since a norm between would
    undo it before. The multipliers take at least 3,488 iterations, twice those in which rho rises from 0.001 to 6: in a
    training of fewer steps several ones in each step, with the gradient of the loss held, so that the factors end where
    they do in a long one. Factors are moved at a rate of their own that falls as the training's does; in the last step
    the iterations go on without the loss until every factor is within 1e-3 of 0 or 1, as which it is merged. They begin
    at 1, those of filters of small L1 norm less by a thousandth at most, so that equal filters don't stay equal.

    Attributes:
        alpha: Share of the multipliers in the factors' gradient; the loss has the rest.
        rho: Strength of the penalty at first.
        rho_growth: Factor of rho in each iteration.
        rho_most: Largest value of rho.
        rate: Learning rate of the factors where that of the training is highest.
    """

    alpha: float = 0.65
    rho: float = 1e-3
    rho_growth: float = 1.005
    rho_most: float = 6.0
    rate: float = 0.1

    name: ClassVar[str] = "cnn-fcf"
    paper: ClassVar[str] = "Li et al., Factorized Convolutional Filters, CVPR 2019"
    reading: ClassVar[str] = (
        "after CNN-FCF as read by prunec: factors stand on the weights that read a filter; the multipliers take 3,488 "
        "iterations at least, in short trainings several in a step; after the last step they go on without the loss "
        "until every factor is within 1e-3 of 0 or 1, as which it is merged"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {
        "alpha": METHOD, "rho": METHOD, "rho_growth": METHOD, "rho_most": METHOD, "rate": METHOD,
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(self, "rho", "rho_most", "rate")
        check_share(self, "alpha")
        if not 1 < self.rho_growth < float("inf"):
            raise UsageError(f"{self.name}: rho_growth must be above 1, got {self.rho_growth}.")

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """The widths are those that L1 norms would choose."""
        check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_cnn_fcf import RunningCnnFcf

        return RunningCnnFcf(training, self)
