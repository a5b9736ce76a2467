"""One ranking of all units by their normalised importance."""

import numpy as np

from prunec.passes.allocation.importance import Importance
from prunec.passes.allocation.space import Space, Widths


def global_ranking(space: Space, importance: Importance, reach: Widths) -> Widths:
    """The widths without the fewest least units of all groups that keep all budgets.

    Bisection gives their number; widths are rounded as by a ratio, and no group loses all units. Then groups take
    single steps back where the budgets still hold, as the best of the units that went tell: the last one that went may
    have cost much more than was over. Where no number keeps the budgets, it begins from widths that do.

    Args:
        space: The widths that may be chosen.
        importance: The importance of the units.
        reach: Widths that keep all budgets.
    """
    owners = np.concatenate([np.full(len(ranked), position) for position, ranked in importance.ranked.items()])
    owners = owners[np.argsort(np.concatenate(list(importance.ranked.values())), kind="stable")]
    low, high = 0, len(owners)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if space.fits(_without(space, owners[:middle])) else (middle, high)
    if space.fits(above := _without(space, owners[:low])):
        return above
    kept = _without(space, owners[:high])
    return _given_back(space, kept, owners[:high]) if space.fits(kept) else _given_back(space, reach, owners)


def _given_back(space: Space, kept: Widths, owners: Widths) -> Widths:
    """The widths with a step more for each of these units, of which the groups are given, the last first."""
    done: set[int] = set()
    for position in reversed(owners.tolist()):
        if position in done:
            continue
        wider = space.wider(kept, position) if kept[position] < space.dense[position] else None
        if wider is not None and space.fits(wider):
            kept = wider
        else:
            done.add(position)
    return kept


def _without(space: Space, owners: Widths) -> Widths:
    """The rounded widths without these units, of which the groups are given."""
    kept = space.dense - np.bincount(owners, minlength=len(space.groups))
    for position in np.flatnonzero(kept < space.dense).tolist():
        kept[position] = space.rounding.nearest(space.groups[position], max(1, int(kept[position])))
    return kept
