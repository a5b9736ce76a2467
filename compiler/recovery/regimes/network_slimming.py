"""The training hook "network-slimming": scales of batch norms under an L1 penalty. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, check_positive
from prunec.passes.places import METHOD, without_effect

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class NetworkSlimming(TrainingHook):
    """Push the scales of batch norms to zero by their L1 norm, then prune the least (Liu et al., ICCV 2017).

    In every step the subgradient penalty * sign(scale) is added to the gradient of each scale behind filters that can
    be pruned. The paper trains for 160 epochs on CIFAR, and takes the least scales of all layers by one threshold:
    that is ``prune-filters{ratio=...,allocation=global,criterion=learned}``, whose budget sets the threshold.

    After the paper as read by prunec: the paper leaves open what shortcuts share; a unit that several batch norms scale
    counts the mean of its scales.

    Attributes:
        penalty: Factor of the sum of absolute scales in the loss.
        near_zero: Scales below it are counted in the report as what the penalty alone made zero.
    """

    penalty: float = 1e-4
    near_zero: float = 1e-2

    name: ClassVar[str] = "network-slimming"
    paper: ClassVar[str] = "Liu et al., Network Slimming, ICCV 2017"
    reading: ClassVar[str] = (
        "after network slimming as read by prunec: a unit that several batch norms scale counts the mean of its scales"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {
        "penalty": METHOD, "near_zero": without_effect("it only counts, for the report")
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(self, "penalty", "near_zero")

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """The budget sets the threshold."""
        check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_network_slimming import RunningNetworkSlimming

        return RunningNetworkSlimming(training, self.penalty, self.near_zero)
