"""The training hook "ssl": structured sparsity by group lasso. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, check_positive
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.places import METHOD, without_effect

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters

SslStructure = Literal["filter", "channel", "shape", "depth"]


@dataclass(frozen=True)
class Ssl(TrainingHook):
    """Push whole structures to zero by a group lasso (Wen et al., "Structured Sparsity Learning", NeurIPS 2016).

    In every step the gradient of penalty * sum over groups g of ||W_g|| is added: penalty * W_g / ||W_g||, and 0 where
    a group is zero. What the penalty alone made zero stands in the report; the pruning behind the training sets the
    last threshold to its budget.

    After the paper as read by prunec: with ``filter`` the bias of a filter and scale and shift of the norm behind it
    belong to its group, since a norm undoes whatever shrinks the weights alone; of coupled filters all are one group.
    Groups count by the root mean square of their weights, so that those of layers of all sizes are compared by one
    threshold.

    Attributes:
        structure: The groups. "filter": filters with what belongs to them, and "channel": the weights that read one,
            for ``prune-filters{criterion=learned}``; "shape": the same position of a convolution's kernels in all its
            filters, for ``sparsify{pattern=columns}``; "depth": residual branches, for ``prune-filters{depth=true}``
            with a goal.
        penalty: Factor of the sum of norms in the loss; the paper's code has 0.003 for filters and 0.007 for depth.
        near_zero: Groups whose root mean square is below it are counted in the report as what the penalty alone made
            zero.
    """

    structure: SslStructure = "filter"
    penalty: float = 3e-3
    near_zero: float = 1e-3

    name: ClassVar[str] = "ssl"
    paper: ClassVar[str] = "Wen et al., Learning Structured Sparsity, NeurIPS 2016"
    reading: ClassVar[str] = (
        "after SSL as read by prunec: the bias of a filter and scale and shift of the norm behind it belong to its "
        "group, coupled filters are one group, and groups are compared by the root mean square of their weights"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {
        "structure": METHOD, "penalty": METHOD, "near_zero": without_effect("it only counts, for the report")
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.structure not in get_args(SslStructure):
            raise UsageError(
                f"ssl: structure is {self.structure!r}.", hint=did_you_mean(self.structure, get_args(SslStructure))
            )
        check_positive(self, "penalty", "near_zero")

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """Filters and channels are chosen by the budget; positions are masked, and branches go, by other steps."""
        if self.structure in ("filter", "channel"):
            check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_ssl import RunningSsl

        return RunningSsl(training, self.structure, self.penalty, self.near_zero)
