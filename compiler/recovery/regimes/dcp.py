"""The training hook "dcp". Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, check_positive
from prunec.passes.errors import UsageError
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class Dcp(TrainingHook):
    """Discrimination-aware channel pruning: channels are chosen that tell classes apart (Zhuang et al., NeurIPS 2018).

    The network has pivots, at each of which a batch norm, a ReLU, a mean over places and a linear layer tell classes.
    The training has a stage for each pivot and one for the network's own outputs: in each the network is trained by its
    loss and that of the pivot, and at the end the stage's layers choose their input channels, one layer after the
    other, greedily. The loss of a choice is the squared difference of the layer's outputs from those of the network
    before the training, plus the stage's loss of classes; the channel comes next by whose weights the gradient is
    largest, while those that aren't chosen are zero, and after each choice the chosen weights take a step by that loss.

    After the paper, as read by prunec: pivots divide the groups that are pruned, in their order, into parts that are as
    large; stages are as long as each other. A choice is made on one batch, the last of its stage, in inference form. A
    layer takes all its channels in a number of rounds, several in one where they are more. A step that doesn't lower
    the loss on its batch is halved until it does, ten times at most. The adaptive stop is left out: widths are those
    that the pruning behind the training leaves.

    Attributes:
        pivots: Number of pivots within the network.
        weight: Weight of the loss of classes.
        rounds: Rounds in which a layer chooses its channels, at most.
        rate: Learning rate of the steps of the chosen weights.
    """

    pivots: int = 3
    weight: float = 1.0
    rounds: int = 16
    rate: float = 1e-2

    name: ClassVar[str] = "dcp"
    paper: ClassVar[str] = "Zhuang et al., Discrimination-aware Channel Pruning, NeurIPS 2018"
    reading: ClassVar[str] = (
        "after DCP as read by prunec: pivots divide the pruned groups into equal parts; channels are chosen on the "
        "last batch of a stage, in at most 16 rounds a layer; without the adaptive stop"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {
        "pivots": METHOD, "weight": METHOD, "rounds": METHOD, "rate": METHOD,
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(self, "weight", "rate")
        if self.pivots < 0 or self.rounds < 1:
            raise UsageError(f"{self.name}: pivots must be at least 0 and rounds at least 1.")

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """The widths are those that L1 norms would choose."""
        check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_dcp import RunningDcp

        return RunningDcp(training, self)
