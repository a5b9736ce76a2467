"""The training hook "sfp": soft filter pruning. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.regimes.checks import check_filters_ahead, scores_by_weights
from prunec.passes.criteria.catalogue import CRITERIA
from prunec.passes.criteria.protocol import Criterion
from prunec.passes.options import CATALOGUE
from prunec.passes.places import METHOD

if TYPE_CHECKING:
    from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class Sfp(TrainingHook):
    """Zero after every epoch the filters that pruning would take, and let them grow again (He et al., IJCAI 2018).

    The paper trains for 100 epochs on ImageNet; here it is as long as the recipe says, and which share goes is what the
    prune-filters behind the training asks for. With ``criterion=fpgm`` it is the same loop by distances between filters
    (He et al., CVPR 2019).

    After the paper as read by prunec: of a unit of coupled filters all filters become zero together. As in the paper
    nothing but their weights does. Biases, norms and what an optimizer remembers stay, since a filter behind a norm
    whose scale is zero, or before a ReLU without its bias, would get no gradient and never grow again. What constant
    they leave goes with the pruning.

    Attributes:
        criterion: A criterion that scores units by weights alone; the least go.
    """

    criterion: str | Criterion = field(default="l2", metadata={CATALOGUE: CRITERIA})

    name: ClassVar[str] = "sfp"
    paper: ClassVar[str] = "He et al., Soft Filter Pruning, IJCAI 2018"
    reading: ClassVar[str] = (
        "after SFP as read by prunec: all filters of a coupled unit become zero together, and nothing but their "
        "weights does: biases, norms and what an optimizer remembers stay, so that filters can grow again"
    )
    prepares_pruning: ClassVar[bool] = True
    places: ClassVar[Mapping[str, str]] = {"criterion": METHOD}

    def __post_init__(self) -> None:
        scores_by_weights(self, self.criterion)

    def check_pruning(self, pruning: "PruneFilters | None") -> None:
        """Filters are chosen after every epoch."""
        check_filters_ahead(self, pruning)

    def start(self, training: "TrainingContext") -> "RunningHook":
        """The hook at work in one training."""
        from prunec.compiler.recovery.regimes.running_sfp import RunningSfp

        return RunningSfp(training, self.criterion)
