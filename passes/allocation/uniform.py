"""One ratio everywhere, then single steps back."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from prunec.passes.allocation.budgets import within
from prunec.passes.allocation.space import Space, Widths

_BISECTIONS = 40
#: Share of the fullest budget that may be left over.
_CLOSE_ENOUGH = 0.01
#: Ratios that are tried where bisection finds none.
_RATIOS = 64


def uniform(space: Space, reach: Widths) -> Widths:
    """The widest of one ratio in every group that keeps all budgets.

    Bisection gives the smallest ratio that does. Then each group, the one whose step is worth most first, takes one
    step back where the budgets still hold. Where that leaves more than 1 % of them unused, since steps are coarse,
    groups trade steps. Where no ratio keeps the budgets, it begins from widths that do.

    Args:
        space: The widths that may be chosen.
        reach: Widths that keep all budgets.
    """
    low, high = Fraction(0), 1 - Fraction(1, 2**_BISECTIONS)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if space.fits(space.at(middle)) else (middle, high)
    kept, above = space.at(high), space.at(low)
    if not space.fits(kept):
        kept, above = _of_one_ratio(space, reach), space.dense
    return _trade_steps(space, step_back(space, kept, above))


def _of_one_ratio(space: Space, reach: Widths) -> Widths:
    rows = np.stack([*(space.at(Fraction(number, _RATIOS)) for number in range(_RATIOS)), reach])
    widths: Widths = rows[int(within(space.fills(rows)).argmax())]
    return widths


def step_back(space: Space, kept: Widths, above: Widths) -> Widths:
    """Give back one step in every group that is below, where budgets still hold, the most expensive steps first."""
    below = np.flatnonzero(above > kept).tolist()
    if not below:
        return kept
    filled = space.fills(np.stack([space.wider(kept, position) for position in below])).max(axis=-1)
    gains = dict(zip(below, filled.tolist(), strict=True))
    for position in sorted(gains, key=lambda p: (-gains[p], p)):
        wider = space.wider(kept, position)
        if space.fits(wider):
            kept = wider
    return kept


def _trade_steps(space: Space, kept: Widths) -> Widths:
    """Narrow one group by a step and widen another, as long as that nears a budget where steps are coarse."""
    fill = float(space.fills(kept).max())
    while fill < 1 - _CLOSE_ENOUGH:
        best = kept
        for trades in _trades(space, kept):
            filled = space.fills(trades)
            fullest = np.where(within(filled), filled.max(axis=-1), -np.inf)
            if fullest.max() > fill:
                best, fill = trades[int(fullest.argmax())], float(fullest.max())
        if best is kept:
            break
        kept = best
    return kept


def _trades(space: Space, kept: Widths) -> Iterator[Widths]:
    """For each group that can be narrowed, the widths with one other group wider; int64 (trades, groups)."""
    for narrower in space.chosen:
        step = int(space.steps[narrower])
        less = (int(kept[narrower]) - 1) // step * step
        wider = [space.wider(kept, p) for p in space.chosen if p != narrower and kept[p] < space.dense[p]]
        if less >= space.least[narrower] and wider:
            trades = np.stack(wider)
            trades[:, narrower] = less
            yield trades
