"""Checks that options of regimes share. Imports no torch."""

import math

from prunec.compiler.recovery.hooks import TrainingHook
from prunec.passes.criteria.catalogue import unit_criterion
from prunec.passes.criteria.evidence import needs_beyond_weights
from prunec.passes.criteria.protocol import Criterion, ScoresUnits
from prunec.passes.errors import UsageError
from prunec.passes.prune_filters import PruneFilters


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
    chosen = unit_criterion(criterion, hook.name)
    if not isinstance(chosen, ScoresUnits) or needs_beyond_weights(chosen):
        raise UsageError(
            f"{hook.name}: the criterion {chosen.name} doesn't score units by their weights alone, and within a "
            "training nothing else is known.",
            hint="For example l2, l1 or fpgm.",
        )
    return chosen


def check_filters_ahead(hook: TrainingHook, pruning: PruneFilters | None, *, ranked: bool = False) -> None:
    """Refuse a pruning that a hook which chooses filters can't work towards.

    Args:
        hook: The hook.
        pruning: The pruning of filters behind its training; None where there is none.
        ranked: Whether the hook ranks the filters of all groups together.

    Raises:
        UsageError: There is no pruning, it takes more than a network to tell which units stay, or it gives each group a
            width of its own where filters are ranked.
    """
    if pruning is None:
        raise UsageError(
            f"recover: the training hook {hook.name} readies filters for prune-filters, and none stands behind it.",
            hint="Put prune-filters{criterion=learned,...} behind the training.",
        )
    pruning.check_countable()
    if ranked and pruning.allocation != "global":
        raise UsageError(
            f"recover: the training hook {hook.name} ranks the filters of all layers together, and prune-filters has "
            f"allocation={pruning.allocation}.",
            hint="Give prune-filters allocation=global.",
        )
