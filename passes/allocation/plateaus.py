"""Widths that cost no time: with a cost model no width is chosen where a wider one is as fast."""

from collections.abc import Iterable

import numpy as np

from prunec.passes.allocation.budgets import Quantity, within
from prunec.passes.allocation.space import Space, Widths

#: What times may differ by and still count as the same, relative: the noise of sums.
_NOISE = 1e-9


def widest_as_fast(space: Space, time: Quantity, kept: Widths) -> Widths:
    """Widen every group as far as the time doesn't grow and all budgets hold."""
    while wider := _widest_as_fast(space, time, kept, space.chosen):
        for position in wider:  # what one takes of a budget another can't
            kept = _widest_as_fast(space, time, kept, [position]).get(position, kept)
    return kept


def _widest_as_fast(space: Space, time: Quantity, kept: Widths, positions: Iterable[int]) -> dict[int, Widths]:
    """The widths with one group as wide as that is as fast, by the group; without those that can't be wider."""
    of_group = {position: space.coarse(position, int(kept[position]))[1:] for position in positions}
    owners = np.repeat(list(of_group), [len(each) for each in of_group.values()])
    rows = np.vstack([space.with_widths(kept, owners, np.concatenate(list(of_group.values()))), kept])
    work = space.workload.at(rows)
    times = time.usage(work)
    is_as_fast = (times <= times[-1] * (1 + _NOISE)) & within(space.fills_of(work))
    # widths ascend within a group: the last one stays
    return {int(owners[row]): rows[row] for row in np.flatnonzero(is_as_fast[:-1])}
