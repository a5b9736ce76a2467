"""The training hook "lfpc". Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, check_positive, check_share, scores_by_weights
from prunec.passes.errors import UsageError
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class Lfpc(TrainingHook):
    """Learned filter-pruning criteria: each layer's is learned with all others' (He et al., CVPR 2020).

    After LFPC as read by prunec, from its abstract and without its code: for each group one of several criteria of
    weights is drawn by the Gumbel softmax, one-hot with the gradient of the soft draw; the network whose filters that
    all drawn criteria would prune are masked runs on a batch that is held out, in inference form, and the sampler takes
    a step of Adam by the loss there. The weights train on the other data as ever. The masks of each criterion are those
    at the beginning of the epoch, and the widths those that the pruning behind the training leaves. What is decided in
    the end are the scores by the likeliest criterion of each group, over their Euclidean norm.

    Attributes:
        criteria: The criteria that are chosen from, which look at weights alone.
        held_out: Share of the training data that the sampler learns from, and nothing else does.
        temperature: Temperature of the softmax of the draws.
        travel: Learning rates of the sampler's Adam, summed over the training.
    """

    criteria: tuple[str, ...] = ("l1", "l2", "fpgm")
    held_out: float = 0.1
    temperature: float = 1.0
    travel: float = 6.0

    name: ClassVar[str] = "lfpc"
    paper: ClassVar[str] = "He et al., Learning Filter Pruning Criteria, CVPR 2020"
    reading: ClassVar[str] = (
        "after LFPC as read by prunec, from its abstract: the Gumbel softmax draws one criterion of weights for each "
        "group, and the sampler alone learns by the loss of the masked network on held-out data"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {
        "criteria": METHOD, "held_out": METHOD, "temperature": METHOD, "travel": METHOD,
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_positive(self, "temperature", "travel")
        check_share(self, "held_out")
        if not self.criteria or len(set(self.criteria)) < len(self.criteria):
            raise UsageError(f"{self.name}: criteria must name different ones, got {list(self.criteria)}.")
        for criterion in self.criteria:
            scores_by_weights(self, criterion)

    @property
    def held_out_fraction(self) -> float:
        """What the sampler learns from."""
        return self.held_out

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """The widths are those that L1 norms would choose."""
        check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_lfpc import RunningLfpc

        return RunningLfpc(training, self)
