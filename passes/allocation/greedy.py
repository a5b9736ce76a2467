"""Step by step where the least is lost for what is saved, and back where budgets allow it.

Costs of layers hang together: narrowing one group changes what narrowing its neighbours saves. So after every step the
costs of the steps of all groups that share an operation with it are taken anew, as soon as one of them would be next
(lazy greedy; Minoux, Accelerated greedy algorithms for maximizing submodular set functions, 1978).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.budgets import within
from prunec.passes.allocation.importance import Losses
from prunec.passes.allocation.space import Space, Widths, step_sizes

#: Steps that narrow a group to one unit at least; a wider group loses several units at once.
_FINEST = 32
#: Changes below this share of a budget are noise.
_NOISE = 1e-9


class _Steps(NamedTuple):
    """Steps of single groups from some widths: the group, its new width, and what changes of each budget's fill."""

    owners: NDArray[np.int64]
    widths: NDArray[np.int64]
    changes: NDArray[np.float64]

    def taken(self, kept: Widths, step: int) -> Widths:
        after = kept.copy()
        after[self.owners[step]] = self.widths[step]
        return after

    def lost(self, losses: Losses, kept: Widths) -> NDArray[np.float64]:
        """What each step loses; negative where it comes back."""
        return losses.at(self.owners, self.widths) - losses.by_group(kept)[self.owners]


#: The widths that a group can be given, by its position and its width.
_Targets = Callable[[Space, int, int], Widths]


def greedy(space: Space, losses: Losses, reach: Widths) -> Widths:
    """Widths that keep all budgets, with little lost.

    From the dense network, the step is taken that loses the least for what it saves of what is over its budget. Steps
    are tried in several sizes, to multiples of 1, 2, 3, 4, 6, 8 ... of a group's own, so that no plateau of a cost
    model holds them up. Then steps go back as long as the budgets hold, those first that bring the most for what they
    use. A width that is slower than a wider one among the steps always loses to that.

    Args:
        space: The widths that may be chosen.
        losses: What the units that go take with them.
        reach: Widths that keep all budgets, which are taken where no step saves anything.
    """
    return _widened(space, losses, _narrowed(space, losses, reach))


def _narrowed(space: Space, losses: Losses, reach: Widths) -> Widths:
    kept, stale = space.dense, frozenset[int]()
    steps, filled = _renewed(space, _narrower, kept, {}, space.chosen)
    while not (within(filled) and space.fits(kept)):
        every = _joined(steps)
        step = _cheapest(every, filled, losses, kept)
        if step is None and not stale:  # no step of these sizes saves anything
            every = _joined(_renewed(space, _any_narrower, kept, {}, space.chosen)[0])
            step = _cheapest(every, filled, losses, kept)
            if step is None:
                return reach
        anew = _to_renew(every, step, stale)
        if anew:
            (steps, filled), stale = _renewed(space, _narrower, kept, steps, anew), stale - anew
            continue
        assert step is not None, "a step that isn't there makes every group's steps be taken anew"
        kept, changed = every.taken(kept, step), int(every.owners[step])
        filled, stale = filled + every.changes[step], stale | _chosen_near(space, changed)
    return kept


def _to_renew(every: _Steps, step: int | None, stale: frozenset[int]) -> frozenset[int]:
    """Groups whose steps are taken anew before a step: its own; all where there is no step."""
    return stale if step is None else stale & {int(every.owners[step])}


def _cheapest(steps: _Steps, filled: NDArray[np.float64], losses: Losses, kept: Widths) -> int | None:
    """The step that loses the least for what it saves of all that is over budget; None where none saves any."""
    saved = _over(filled) - _over(filled + steps.changes)
    saving = np.flatnonzero(saved > _NOISE)
    if not len(saving):
        return None
    price = steps.lost(losses, kept)[saving] / saved[saving]
    return int(saving[np.lexsort((-saved[saving], price))[0]])


def _over(filled: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is over budget, each budget relative to its limit; float64 (...,) of (..., budgets)."""
    over: NDArray[np.float64] = np.maximum(filled - 1, 0).sum(axis=-1)
    return over


def _widened(space: Space, losses: Losses, kept: Widths) -> Widths:
    steps, filled = _renewed(space, _wider, kept, {}, space.chosen)
    stale = frozenset[int]()
    while True:
        every = _joined(steps)
        brought = -every.lost(losses, kept)
        used = np.maximum(every.changes, 0).sum(axis=-1)
        price = np.where((brought > 0) & within(filled + every.changes), brought / (used + _NOISE), 0)
        step = int(price.argmax()) if price.any() else None
        anew = _to_renew(every, step, stale)
        if anew:
            (steps, filled), stale = _renewed(space, _wider, kept, steps, anew), stale - anew
            continue
        if step is None:
            return kept
        after, changed = every.taken(kept, step), int(every.owners[step])
        if space.fits(after):
            kept, filled, stale = after, filled + every.changes[step], stale | _chosen_near(space, changed)
        else:  # costs don't add up over operations: what was taken from other widths is wrong at these
            (steps, filled), stale = _renewed(space, _wider, kept, {}, space.chosen), frozenset()


def _renewed(
    space: Space, targets: _Targets, kept: Widths, steps: Mapping[int, _Steps], positions: Iterable[int]
) -> tuple[Mapping[int, _Steps], NDArray[np.float64]]:
    """Steps by group, those of some groups taken anew, and what the widths use of each budget."""
    widths = {position: targets(space, position, int(kept[position])) for position in positions}
    owners = np.repeat(list(widths), [len(each) for each in widths.values()]).astype(np.int64)
    joined = np.concatenate([*widths.values(), np.empty(0, dtype=np.int64)])
    filled = space.fills(np.vstack([space.with_widths(kept, owners, joined), kept]))
    every = _Steps(owners, joined, filled[:-1] - filled[-1])
    ends = np.cumsum([len(each) for each in widths.values()])[:-1]
    parts = zip(*(np.split(column, ends) for column in every), strict=True)
    return {**steps, **{position: _Steps(*part) for position, part in zip(widths, parts, strict=True)}}, filled[-1]


def _joined(steps: Mapping[int, _Steps]) -> _Steps:
    return _Steps(*(np.concatenate(column) for column in zip(*steps.values(), strict=True)))


def _chosen_near(space: Space, position: int) -> frozenset[int]:
    return frozenset(other for other in space.chosen if space.near[position, other])


def _narrower(space: Space, position: int, width: int) -> Widths:
    finest, count = int(space.steps[position]), int(space.dense[position])
    while count > _FINEST * finest:
        finest *= 2
    sizes = step_sizes(finest, count)
    down: Widths = np.unique((width - 1) // sizes * sizes)
    return down[down >= int(space.least[position])]


def _any_narrower(space: Space, position: int, width: int) -> Widths:
    allowed = space.allowed(position)
    narrower: Widths = allowed[allowed < width]
    return narrower


def _wider(space: Space, position: int, width: int) -> Widths:
    count = int(space.dense[position])
    if width == count:
        return np.empty(0, dtype=np.int64)
    sizes = space.sizes(position)
    return np.unique(np.minimum((width // sizes + 1) * sizes, count))
