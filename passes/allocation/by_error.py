"""One error everywhere: every group has the units that its criterion says it needs for that."""

from collections.abc import Callable, Mapping
from functools import partial
from math import exp, isfinite, log

import numpy as np

from prunec.passes.allocation.space import Space, Widths
from prunec.passes.allocation.uniform import step_back
from prunec.passes.criteria.catalogue import blame
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import SizesUnits
from prunec.passes.errors import UsageError
from prunec.passes.groups import Group

#: The units that groups need for an error, by the position of the group.
NeededUnits = Mapping[int, Callable[[float], float]]
#: Errors that are tried, from one that no group could keep to one that any group does.
_LEAST_ERROR, _LARGEST_ERROR = 1e-9, 1e12
_BISECTIONS = 80


def needs_of(criterion: SizesUnits, group: Group, evidence: Evidence) -> Callable[[float], float]:
    """The units that a group needs, as a function of the error."""
    return partial(_needed, criterion, group, evidence)


def _needed(criterion: SizesUnits, group: Group, evidence: Evidence, error: float) -> float:
    with blame(criterion):
        needed = float(criterion.needed(group, evidence, error))
    if not isfinite(needed):
        raise UsageError(
            f"The criterion {criterion.name} says that the group {group.name} needs {needed} units for an error of "
            f"{error:g}: expected a number."
        )
    return needed


def by_error(space: Space, needs: NeededUnits, reach: Widths) -> Widths:
    """The widths of the least error that keeps all budgets, the same error in every group.

    Bisection finds it; widths are rounded as by a ratio, and no group loses all units. Then groups take single steps
    back, first those that a smaller error would widen, until no further one keeps the budgets. Where no error keeps
    them, it begins from widths that do.

    Args:
        space: The widths that may be chosen.
        needs: The units that every group that may be pruned needs.
        reach: Widths that keep all budgets.
    """
    low, high = log(_LEAST_ERROR), log(_LARGEST_ERROR)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if space.fits(_at(space, needs, exp(middle))) else (middle, high)
    above, kept = _at(space, needs, exp(low)), _at(space, needs, exp(high))
    kept = step_back(space, kept, above) if space.fits(kept) else reach
    while not np.array_equal(wider := step_back(space, kept, space.dense), kept):
        kept = wider
    return kept


def _at(space: Space, needs: NeededUnits, error: float) -> Widths:
    """The rounded widths for an error."""
    kept = space.dense.copy()
    for position, needed in needs.items():
        group = space.groups[position]
        width = min(max(needed(error), 1.0), float(group.count))
        kept[position] = space.rounding.nearest(group, int(width + 0.5)) if width < group.count else group.count
    return kept
