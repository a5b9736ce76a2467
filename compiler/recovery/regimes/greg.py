"""The training hooks "greg-1" and "greg-2": growing regularization. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, check_positive, check_share
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class Greg1(TrainingHook):
    """Choose filters by L1 norm and let an L2 penalty on them grow until they are gone (Wang et al., ICLR 2021).

    The paper adds 1e-4 to the penalty every 10 steps on CIFAR (5 on ImageNet) up to 1, which are 100,010 steps
    (50,005), trains for 10,000 (40,000) more at that penalty, all at a learning rate of 0.001, and cuts. Here both
    last as long as the training's epochs leave, and the penalty is higher by one factor, so that the sum over the
    steps of learning rate times penalty is that of the paper. It stops growing on a group whose kept filters are far
    larger than its pruned ones.

    After the paper as read by prunec: the penalty acts on all that belongs to a pruned unit, biases and the norms
    behind its filters too, since a norm undoes whatever shrinks weights alone. Its step, w -= rate * penalty * w, is
    taken beside the optimizer's, as AdamW decays weights, and at most the whole weight: where an optimizer has no
    momentum that is the gradient penalty * w of the paper. With momentum the rate is what that makes of the learning
    rate in the long run, 1 / (1 - momentum) times it, so that loss and penalty keep the paper's balance in however few
    steps.

    Attributes:
        total: Sum over all steps of learning rate times penalty; 50 + 10 in the paper on CIFAR, 25 + 40 on ImageNet.
        stabilise: Share of the training's steps at the full penalty.
        ratio_limit: Mean magnitude of kept weights over that of pruned ones, a moving average of 0.9, at which the
            penalty stops growing on a group.
    """

    total: float = 60.0
    stabilise: float = 0.1
    ratio_limit: float = 1000.0

    name: ClassVar[str] = "greg-1"
    paper: ClassVar[str] = "Wang et al., Neural Pruning via Growing Regularization, ICLR 2021"
    reading: ClassVar[str] = (
        "after GReg as read by prunec: the penalty acts on biases and norms of pruned filters too, beside the "
        "optimizer's step, and the sum of learning rate times penalty is the paper's at any length"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = dict.fromkeys(("total", "stabilise", "ratio_limit"), METHOD)

    def __post_init__(self) -> None:
        check_positive(self, "total", "ratio_limit")
        check_share(self, "stabilise")

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """Filters are chosen while it trains."""
        check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.penalty_course import PenaltyCourse
        from prunec.compiler.recovery.regimes.running_greg import RunningGreg

        course = PenaltyCourse.of(self, training, self.total, stabilise=self.stabilise)
        return RunningGreg(training, self.name, course, self.ratio_limit)


@dataclass(frozen=True)
class Greg2(TrainingHook):
    """Let an L2 penalty grow on all filters, choose by the L1 norms that it leaves, go on (Wang et al., ICLR 2021).

    The paper adds 1e-5 every 10 steps on CIFAR (5 on ImageNet) up to 0.01, on the filters of all layers that are
    pruned, which are 9,990 steps (4,995); filters that the loss holds on to stay larger. The least by L1 norm go:
    their penalty grows on by 1e-4 up to 1, while that of the others falls by 1e-4 down to 0. Lengths, scale and
    reading are those of `Greg1`, but that the penalty of filters that aren't chosen acts on their weights alone, as in
    the paper.

    Attributes:
        total: Sum over all steps of learning rate times the penalty of a pruned filter.
        pick: Share of the training's steps before filters are chosen.
        stabilise: Share of the training's steps at the full penalty.
        ratio_limit: The same bound as in `Greg1`.
    """

    total: float = 60.0
    pick: float = 0.08
    stabilise: float = 0.1
    ratio_limit: float = 1000.0

    name: ClassVar[str] = "greg-2"
    paper: ClassVar[str] = "Wang et al., Neural Pruning via Growing Regularization, ICLR 2021"
    reading: ClassVar[str] = (
        "after GReg as read by prunec: the penalty acts on biases and norms of pruned filters too, beside the "
        "optimizer's step, and the sum of learning rate times penalty is the paper's at any length; that of kept "
        "filters falls to 0"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = dict.fromkeys(("total", "pick", "stabilise", "ratio_limit"), METHOD)

    def __post_init__(self) -> None:
        check_positive(self, "total", "ratio_limit")
        check_share(self, "stabilise", "pick")

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """Filters are chosen while it trains."""
        check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.penalty_course import PenaltyCourse
        from prunec.compiler.recovery.regimes.running_greg import RunningGreg

        course = PenaltyCourse.of(self, training, self.total, stabilise=self.stabilise, pick=self.pick)
        return RunningGreg(training, self.name, course, self.ratio_limit)
