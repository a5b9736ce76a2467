"""Retraining a pruned network: learning-rate schedules and the finetune itself."""

from prunec.passes.lazy import lazy_attributes

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
