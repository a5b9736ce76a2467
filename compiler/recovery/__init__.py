"""Retraining a pruned network: learning-rate schedules, training hooks and the training itself."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.compiler.recovery.hooks import TrainingHook as TrainingHook
    from prunec.compiler.recovery.optimizer_kinds import OwnOptimizer as OwnOptimizer
    from prunec.compiler.recovery.recover_options import Recover as Recover
    from prunec.compiler.recovery.recovered import Recovered as Recovered
    from prunec.compiler.recovery.running_hook import Attachment as Attachment
    from prunec.compiler.recovery.running_hook import Batch as Batch
    from prunec.compiler.recovery.running_hook import HookCost as HookCost
    from prunec.compiler.recovery.running_hook import Moment as Moment
    from prunec.compiler.recovery.running_hook import OwnParameters as OwnParameters
    from prunec.compiler.recovery.running_hook import RunningHook as RunningHook
    from prunec.compiler.recovery.running_hook import TrainingContext as TrainingContext
    from prunec.compiler.recovery.schedules import Schedule as Schedule
    from prunec.compiler.recovery.schedules import parse_schedule as parse_schedule

_RUNNING = ("Attachment", "Batch", "HookCost", "Moment", "OwnParameters", "RunningHook", "TrainingContext")
# The function `recover` is not exported here: its module has the same name.
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "OwnOptimizer": "prunec.compiler.recovery.optimizer_kinds",
        "Recover": "prunec.compiler.recovery.recover_options",
        "Recovered": "prunec.compiler.recovery.recovered",
        "Schedule": "prunec.compiler.recovery.schedules",
        "TrainingHook": "prunec.compiler.recovery.hooks",
        "parse_schedule": "prunec.compiler.recovery.schedules",
        **dict.fromkeys(_RUNNING, "prunec.compiler.recovery.running_hook"),
    },
)
