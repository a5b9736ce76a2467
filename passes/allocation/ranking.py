"""One ranking of all units by their normalised importance."""

import numpy as np

from prunec.passes.allocation.importance import Importance
from prunec.passes.allocation.space import Space, Widths
from prunec.passes.allocation.uniform import step_back


def global_ranking(space: Space, importance: Importance, reach: Widths) -> Widths:
    """The widths without the fewest least units of all groups that keep all budgets.

    Bisection gives their number; widths are rounded as by a ratio, and no group loses all units. Then groups take
    single steps back where the budgets still hold. Where no number keeps the budgets, it begins from widths that do.

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
    above, kept = _without(space, owners[:low]), _without(space, owners[:high])
    if space.fits(above):
        return above
    return step_back(space, kept, above) if space.fits(kept) else step_back(space, reach, space.dense)


def _without(space: Space, owners: Widths) -> Widths:
    """The rounded widths without these units, of which the groups are given."""
    kept = space.dense - np.bincount(owners, minlength=len(space.groups))
    for position in np.flatnonzero(kept < space.dense).tolist():
        kept[position] = space.rounding.nearest(space.groups[position], max(1, int(kept[position])))
    return kept
