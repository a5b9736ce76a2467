"""Widths that cost no time: with a cost model no width is chosen where a wider one is as fast."""

import numpy as np

from prunec.passes.allocation.budgets import Quantity, within
from prunec.passes.allocation.space import Space, Widths

#: What times may differ by and still count as the same, relative: the noise of sums.
_NOISE = 1e-9


def widest_as_fast(space: Space, time: Quantity, kept: Widths) -> Widths:
    """Widen every group as far as the time doesn't grow and all budgets hold."""
    is_new = True
    while is_new:
        is_new = False
        for position in space.chosen:
            allowed = space.allowed(position)
            widths = allowed[allowed >= kept[position]]
            rows = np.tile(kept, (len(widths), 1))
            rows[:, position] = widths
            work = space.workload.at(rows)
            times = time.usage(work)
            as_fast = np.flatnonzero((times <= times[0] * (1 + _NOISE)) & within(space.fills_of(work)))
            if as_fast[-1] > 0:
                kept, is_new = rows[as_fast[-1]], True
    return kept
