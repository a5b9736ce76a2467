"""One ranking of all units by their normalised importance."""

import numpy as np

from prunec.passes.allocation.importance import Importance
from prunec.passes.allocation.space import Space, Widths
from prunec.passes.allocation.uniform import step_back


def global_ranking(space: Space, importance: Importance) -> Widths:
    """The widths without the fewest least units of all groups that keep all budgets; the least widths must.

    Bisection gives their number; widths are rounded as by a ratio, and no group loses all units. Then groups take
    single steps back where the budgets still hold.
    """
    owners = np.concatenate([np.full(len(ranked), position) for position, ranked in importance.ranked.items()])
    owners = owners[np.argsort(np.concatenate(list(importance.ranked.values())), kind="stable")]
    low, high = 0, len(owners)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if space.fits(_without(space, owners[:middle])) else (middle, high)
    above, kept = _without(space, owners[:low]), _without(space, owners[:high])
    return above if space.fits(above) else step_back(space, kept, above)


def _without(space: Space, owners: Widths) -> Widths:
    """The rounded widths without these units, of which the groups are given."""
    kept = space.dense - np.bincount(owners, minlength=len(space.groups))
    for position in np.flatnonzero(kept < space.dense).tolist():
        kept[position] = space.rounding.nearest(space.groups[position], max(1, int(kept[position])))
    return kept
