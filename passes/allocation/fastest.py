"""The fastest widths. The least ones needn't be: engines run narrow or unaligned layers by other kernels."""

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.budgets import Quantity, within
from prunec.passes.allocation.space import Space, Widths

#: Improvements of the time below this share of it are noise.
_NOISE = 1e-9
#: Channels in a block of an engine at most.
_LARGEST_BLOCK = 256
#: Of so many widths of a group all are tried.
_FEW = 32


def fastest(space: Space, time: Quantity) -> Widths:
    """The widths of least time that keep the space's other budgets; the least widths must.

    Coordinate descent (e.g. Wright, Coordinate descent algorithms, 2015) from the least widths, and from the fastest of
    those that are rounded up to multiples of one power of two. In every round all widths of all groups are tried at
    once, and what makes single groups faster is taken together where that is faster still.
    """
    blocks = 2 ** np.arange(_LARGEST_BLOCK.bit_length())
    starts = np.stack([_rounded_up(space, block) for block in blocks.tolist()])
    times = _times(space, time, starts)
    ends = [_descended(space, time, starts[start]) for start in dict.fromkeys((0, int(times.argmin())))]
    return ends[int(_times(space, time, np.stack(ends)).argmin())]


def _rounded_up(space: Space, block: int) -> Widths:
    """The least widths, rounded up to multiples of a block."""
    multiple = np.lcm(space.steps, block)
    return np.where(
        space.least < space.dense, np.minimum(-(-space.least // multiple) * multiple, space.dense), space.least
    )


def _descended(space: Space, time: Quantity, kept: Widths) -> Widths:
    of_group = [space.coarse(position, int(space.least[position]), _FEW) for position in space.chosen]
    owners, widths = np.repeat(space.chosen, [len(each) for each in of_group]), np.concatenate(of_group)
    best = float(_times(space, time, kept[None])[0])
    while True:
        rows = space.with_widths(kept, owners, widths)
        times = _times(space, time, rows)
        together = kept.copy()
        for step in np.argsort(-times, kind="stable"):  # the fastest of a group comes last
            if times[step] < best * (1 - _NOISE):
                together[owners[step]] = widths[step]
        options = np.stack([together, rows[int(times.argmin())]])
        times = _times(space, time, options)
        if not times.min() < best * (1 - _NOISE):
            return kept
        kept, best = options[int(times.argmin())], float(times.min())


def _times(space: Space, time: Quantity, rows: Widths) -> NDArray[np.float64]:
    """Time at widths (rows, groups), infinite where another budget doesn't hold; float64 (rows,)."""
    work = space.workload.at(rows)
    others = [budget for budget in space.budgets if budget.quantity.name != time.name]
    holds = within(space.fills_of(work)[:, [budget in others for budget in space.budgets]]) if others else True
    return np.where(holds, time.usage(work), np.inf)
