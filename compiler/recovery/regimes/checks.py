"""Checks that options of regimes share. Imports no torch."""

import math

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.passes.errors import UsageError


def check_positive(hook: TrainingHook, *options: str) -> None:
    """Refuse options of a hook that aren't finite numbers above 0 with a `UsageError`."""
    for option in options:
        value = getattr(hook, option)
        if not 0 < value < math.inf:
            raise UsageError(f"{hook.name}: {option} must be above 0 and finite, got {value}.")


def check_share(hook: TrainingHook, *options: str) -> None:
    """Refuse options of a hook that are no shares of a training, above 0 and below 1, with a `UsageError`."""
    for option in options:
        value = getattr(hook, option)
        if not 0 < value < 1:
            raise UsageError(f"{hook.name}: {option} is a share of the training's steps, above 0 and below 1: {value}.")
