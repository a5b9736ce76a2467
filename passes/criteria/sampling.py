"""Units drawn with replacement, by probabilities that are shares of their worth."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: A unit of a smaller share is never drawn: no number of draws that is ever made would find it.
_LEAST_SHARE = 1e-12
#: Halvings of the interval in which a number of draws lies, from one to more than any share asks for.
_BISECTIONS, _MOST_DRAWS = 80, 1e18


def shares(worth: Floats) -> Floats:
    """The probability of each unit, (n,), in proportion to its worth; alike where none has any."""
    total = float(worth.sum())
    return worth / total if total > 0 else np.full(len(worth), 1 / len(worth))


def expected_units(share: Floats, draws: float, *, keeps_certain: bool = False) -> float:
    """How many different units so many draws find, in expectation.

    With ``keeps_certain`` a unit that is drawn once or more in expectation counts as found.
    """
    drawn = -np.expm1(draws * np.log1p(-np.minimum(share, 1 - 1e-15)))
    return float(np.where(draws * share >= 1, 1.0, drawn).sum() if keeps_certain else drawn.sum())


def certain_units(share: Floats, count: int) -> NDArray[np.bool_]:
    """The units that are drawn once or more in expectation where `expected_units` are ``count``, certain ones kept."""
    low, high = 0.0, float(np.log(_MOST_DRAWS))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_enough = expected_units(share, float(np.exp(middle)), keeps_certain=True) > count
        low, high = (low, middle) if is_enough else (middle, high)
    certain: NDArray[np.bool_] = np.exp(low) * share >= 1
    return certain


def draw(share: Floats, count: int, random: Generator) -> tuple[NDArray[np.int64], Floats]:
    """Draw with replacement until ``count`` units are found.

    Drawing is taken as a Poisson process: each unit arrives after an exponential time of its rate, and so often as that
    rate says from then on until the last unit is found. The order of the units and how often each was drawn have the
    same distribution as by drawing one by one, without the many draws that rare units take.

    Args:
        share: Probabilities, (n,), in sum 1.
        count: Number of different units, at most n.
        random: The random numbers.

    Returns:
        The units, ascending, int64 (count,), and for each the weight that makes up for those that are not there:
        how often it was drawn over how often that was to be expected. Units that can't be drawn fill up the rest,
        at a weight of 1.
    """
    can_come = share > _LEAST_SHARE
    arrivals = np.full(len(share), np.inf)
    arrivals[can_come] = random.exponential(size=len(share))[can_come] / share[can_come]
    units = np.sort(np.argsort(arrivals, kind="stable")[:count])
    drawn = units[can_come[units]]
    weights = np.ones(count)
    if len(drawn):
        times = 1 + random.poisson(share[drawn] * (arrivals[drawn].max() - arrivals[drawn]))
        weights[can_come[units]] = times / (times.sum() * share[drawn])
    return units, weights


def draw_beside_certain(share: Floats, count: int, random: Generator) -> tuple[NDArray[np.int64], Floats]:
    """Keep the `certain_units` at a weight of 1, and `draw` the rest of ``count`` units among the others."""
    is_certain = certain_units(share, count)
    weights = is_certain.astype(np.float64)  # of all units; 0 for those that go
    others = np.flatnonzero(~is_certain)
    if len(others):
        units, drawn = draw(shares(share[others]), count - int(is_certain.sum()), random)
        weights[others[units]] = drawn
    kept = np.flatnonzero(weights)
    return kept, weights[kept]
