"""One ranking of all units by their normalised importance."""

from bisect import bisect_left

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
    count = bisect_left(range(len(owners)), True, key=lambda count: space.fits(_without(space, owners[:count])))
    kept = _without(space, owners[:count])
    return _given_back(space, kept if space.fits(kept) else reach, owners)


def _given_back(space: Space, kept: Widths, owners: Widths) -> Widths:
    """The widths with units that went, the best first, of each group as many as the budgets allow.

    Bisection gives how many come back together, until the next one's group can't have another.

    Args:
        space: The widths that may be chosen.
        kept: Widths that keep the budgets.
        owners: The group of every unit, the least important unit first.
    """
    gone = _gone(space.dense - kept, owners)[::-1]
    back = gone[:0]

    def fits(these: Widths) -> bool:
        return space.fits(_with(space, kept, these))

    while len(gone):
        counts = range(1, len(gone) + 1)
        count = bisect_left(counts, True, key=lambda count: not fits(np.append(back, gone[:count])))
        back, gone = np.append(back, gone[:count]), gone[count:]
        gone = gone[gone != gone[0]] if len(gone) else gone
    return _with(space, kept, back)


def _gone(counts: Widths, owners: Widths) -> Widths:
    """The groups of the units that went: of each group so many of the least important."""
    went = np.zeros(len(owners), dtype=bool)
    for position in np.flatnonzero(counts).tolist():
        went[np.flatnonzero(owners == position)[: counts[position]]] = True
    return owners[went]


def _with(space: Space, kept: Widths, owners: Widths) -> Widths:
    """The widths with these units more, of which the groups are given, rounded up."""
    wider = kept + np.bincount(owners, minlength=len(kept))
    for position in np.flatnonzero(wider > kept).tolist():
        wider[position] = space.rounding.round_up(space.groups[position], int(wider[position]))
    return wider


def _without(space: Space, owners: Widths) -> Widths:
    """The rounded widths without these units, of which the groups are given."""
    kept = space.dense - np.bincount(owners, minlength=len(space.groups))
    for position in np.flatnonzero(kept < space.dense).tolist():
        kept[position] = space.rounding.nearest(space.groups[position], max(1, int(kept[position])))
    return kept
