"""The widths that may be chosen, and what they use of their budgets. Widths are int64 (groups,)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.budgets import Budget, within
from prunec.passes.costs.workload import Work, Workload
from prunec.passes.groups import Group
from prunec.passes.ratios import Rounding

Widths = NDArray[np.int64]
#: Of so many widths of a group all are tried; of more about as many, where blocks of an engine end.
_FEW = 128


@dataclass(frozen=True, eq=False)
class Space:
    """The widths that groups may have, and the budgets that they must keep.

    Attributes:
        groups: All prunable groups.
        chosen: Positions of those that may be pruned.
        rounding: Rounding of the widths.
        workload: The work as a function of the widths.
        budgets: What must hold.
    """

    groups: Sequence[Group]
    chosen: Sequence[int]
    rounding: Rounding
    workload: Workload
    budgets: tuple[Budget, ...]

    @cached_property
    def dense(self) -> Widths:
        """All units of every group."""
        return np.array([group.count for group in self.groups], dtype=np.int64)

    @cached_property
    def least(self) -> Widths:
        """The least widths."""
        least = self.dense.copy()
        for position in self.chosen:
            least[position] = self.rounding.round_up(self.groups[position], 1)
        return least

    @cached_property
    def steps(self) -> Widths:
        """Multiple of units that each group's width is rounded to."""
        return np.array([self.rounding.step(group) for group in self.groups], dtype=np.int64)

    def at(self, ratio: Fraction) -> Widths:
        """The widths that a ratio leaves in every chosen group."""
        kept = self.dense.copy()
        for position in self.chosen:
            kept[position] = self.rounding.kept(self.groups[position], ratio)
        return kept

    def wider(self, kept: Widths, position: int) -> Widths:
        """The widths with one step more in one group."""
        wider = kept.copy()
        wider[position] = self.rounding.round_up(self.groups[position], int(kept[position]) + 1)
        return wider

    def allowed(self, position: int) -> Widths:
        """All widths that a group may have, ascending, (widths,)."""
        step, count = int(self.steps[position]), int(self.dense[position])
        return np.append(np.arange(self.least[position], count, step), count)

    def sizes(self, position: int) -> Widths:
        """Sizes of steps: 1, 2, 3, 4, 6, 8, 12 ... times a group's own, up to its count."""
        step, count = int(self.steps[position]), int(self.dense[position])
        return step_sizes(step, count)

    def coarse(self, position: int, least: int, few: int = _FEW) -> Widths:
        """The widths from an allowed one on, ascending, (widths,): of many only where blocks may end.

        These are multiples of a power of two, and the next multiple of each of `sizes`.
        """
        allowed = self.allowed(position)
        wider = allowed[allowed >= least]
        if len(wider) <= few:
            return wider
        step = int(self.steps[position])
        block = step * 2 ** ((len(wider) - 1) // few).bit_length()
        multiples = np.arange(-(-least // block) * block, wider[-1], block)
        sizes = self.sizes(position)
        following = np.minimum((least // sizes + 1) * sizes, wider[-1])
        return np.unique(np.concatenate([[least], multiples, following]))

    def with_widths(self, kept: Widths, owners: Widths, widths: Widths) -> Widths:
        """Widths with those of single groups changed, one in each row; int64 (changes, groups)."""
        rows = np.tile(kept, (len(owners), 1))
        rows[np.arange(len(owners)), owners] = widths
        return rows

    @cached_property
    def near(self) -> NDArray[np.bool_]:
        """Whether two groups have an operation in common, bool (groups, groups)."""
        touched = self.workload.touched.astype(np.int64)
        return touched @ touched.T > 0

    def fills(self, kept: Widths) -> NDArray[np.float64]:
        """What widths (..., groups) use of each budget, over its limit; float64 (..., budgets)."""
        return self.fills_of(self.workload.at(kept))

    def fills_of(self, work: Work) -> NDArray[np.float64]:
        """What some work uses of each budget, over its limit; float64 (..., budgets)."""
        return np.stack([budget.quantity.usage(work) / budget.limit for budget in self.budgets], axis=-1)

    def fits(self, kept: Widths) -> bool:
        """Whether all budgets hold."""
        return bool(within(self.fills(kept)))


def step_sizes(finest: int, count: int) -> Widths:
    """Sizes of steps: 1, 2, 3, 4, 6, 8, 12 ... times the finest, up to a group's count."""
    doubled = finest * 2 ** np.arange(max(count // finest, 1).bit_length())
    return np.union1d(doubled, 3 * doubled)
