"""Retraining a pruned network: learning-rate schedules and the finetune itself."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.compiler.recovery.options import Recover as Recover
    from prunec.compiler.recovery.recover import RecoveryResult as RecoveryResult
    from prunec.compiler.recovery.schedules import Schedule as Schedule
    from prunec.compiler.recovery.schedules import parse_schedule as parse_schedule

# The function `recover` is not exported here: its module has the same name.
__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Recover": "prunec.compiler.recovery.options",
        "RecoveryResult": "prunec.compiler.recovery.recover",
        "Schedule": "prunec.compiler.recovery.schedules",
        "parse_schedule": "prunec.compiler.recovery.schedules",
    },
)
