"""Checks that options of regimes share. Imports no torch."""

import math

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.passes.criteria.catalogue import unit_criterion
from prunec.passes.criteria.evidence import needs_beyond_weights
from prunec.passes.criteria.protocol import Criterion, ScoresUnits
from prunec.passes.errors import UsageError


def check_positive(hook: TrainingHook, *options: str) -> None:
    """Refuse options of a hook that aren't finite numbers above 0 with a `UsageError`."""
    for option in options:
        value = getattr(hook, option)
        if not 0 < value < math.inf:
            raise UsageError(f"{hook.name}: {option} must be above 0 and finite, got {value}.")


def check_share(hook: TrainingHook, *options: str) -> None:
    """Refuse options of a hook that are no shares, above 0 and below 1, with a `UsageError`."""
    for option in options:
        value = getattr(hook, option)
        if not 0 < value < 1:
            raise UsageError(f"{hook.name}: {option} is a share, above 0 and below 1: {value}.")


def scores_by_weights(hook: TrainingHook, criterion: str | Criterion) -> ScoresUnits:
    """The criterion that a hook is given, which must score units by their weights alone.

    Raises:
        UsageError: There is no such criterion, or it is of another kind.
    """
    found = unit_criterion(criterion, hook.name)
    if not isinstance(found, ScoresUnits) or needs_beyond_weights(found):
        raise UsageError(
            f"{hook.name}: the criterion {found.name} doesn't score units by their weights alone, and within a "
            "training nothing else is known.",
            hint="For example l2, l1 or fpgm.",
        )
    return found
