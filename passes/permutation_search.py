"""Search for an order of columns in which 2:4 sparsity keeps more magnitude.

Pairs of stripes of four columns are split anew, the best first, until no split of any pair gains (Pool and Yu, "Channel
Permutations for N:M Sparsity", NeurIPS 2021). Then simulated annealing exchanges columns at random, which finds what
pairs of stripes can't, and the pairs are split once more.

Columns may differ in scale by orders of magnitude. Then the temperature is that of the smaller ones, since at another
the many small columns would stay as random as they began; and columns are exchanged more often with those of about
their own scale, since another one rarely takes their place at a gain.
"""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.passes.interruption import stop_if_asked, stoppable
from prunec.passes.permutation_kernels import (
    STRIPE_SPLITS,
    Array32,
    Indices,
    anneal,
    best_splits,
    split_stripes,
    stripe_worths,
)

#: Work between two looks at the clock, in pairs of stripes times rows; it takes about a tenth of a second.
_CHUNK = 10_000_000
#: Share of the worth of two stripes below which a gain is rounding.
_SMALLEST_GAIN = 3e-6
#: Temperatures of the annealing, in standard deviations of what an exchange of small columns gains.
_HOT, _COLD = 0.15, 0.02
#: Share of the columns that are small.
_SMALL = 0.25
#: Standard deviation of the logarithm of the columns' scales with which half of the exchanges are among similar ones.
_SPREAD = 0.2
#: Exchanges between two drawings of random numbers.
_EXCHANGES = 1_000_000


@dataclass(frozen=True)
class Order:
    """Result of a search.

    Attributes:
        columns: The column at each position, int64 (columns,).
        retained: Magnitude that 2:4 keeps in this order.
        retained_before: Magnitude that 2:4 keeps in the given order.
        pair_rows: Work that was done on pairs of stripes, in pairs times rows.
        exchanges: Number of exchanges that the annealing tried.
        complete: Whether the search ended by itself; False where the time was up.
    """

    columns: Indices
    retained: float
    retained_before: float
    pair_rows: int
    exchanges: int
    complete: bool


def retained_magnitude(matrix: NDArray[Any]) -> float:
    """Magnitude that 2:4 keeps of a matrix (rows, columns), columns a multiple of 4: the two largest of every four."""
    fours = np.sort(np.abs(matrix).reshape(len(matrix), -1, 4), axis=2)
    return float(fours[..., 2:].sum(dtype=np.float64))


def efficacy(matrix: NDArray[Any], retained: float) -> float:
    """Share of the loss of 2:4 that an order undoes; at 1 each row keeps its own larger half.

    Args:
        matrix: Weights (rows, columns) in the order before.
        retained: Magnitude that 2:4 keeps in the new order.
    """
    magnitudes = np.sort(np.abs(matrix), axis=1)
    best = float(magnitudes[:, magnitudes.shape[1] // 2 :].sum(dtype=np.float64))
    before = retained_magnitude(matrix)
    return (retained - before) / (best - before) if best > before else 0.0


def search(matrix: NDArray[Any], seed: int, seconds: float = np.inf, exchanges: int = 0) -> Order:
    """Order the columns of a matrix of weights.

    The result depends on the seed alone, unless the time is up before the search is done.

    Args:
        matrix: Weights (rows, columns), columns a multiple of 4.
        seed: Seed of the annealing.
        seconds: Wall-clock time after which the best order so far is returned.
        exchanges: Number of exchanges that the annealing tries; 0 for the pairs of stripes alone.
    """
    x = np.ascontiguousarray(np.abs(matrix).T, dtype=np.float32)
    deadline = time.monotonic() + seconds
    columns, pair_rows, complete = _split_pairs(x, np.arange(len(x), dtype=np.int64), deadline)
    tried = 0
    if exchanges and complete:
        annealed, tried, complete = _anneal(x, columns, seed, exchanges, deadline)
        annealed, more, finished = _split_pairs(x, annealed, deadline)
        pair_rows, complete = pair_rows + more, complete and finished
        if _worth(x, annealed) > _worth(x, columns):
            columns = annealed
    before = retained_magnitude(matrix)
    retained = retained_magnitude(matrix[:, columns])
    if retained <= before:
        columns, retained = np.arange(len(x), dtype=np.int64), before
    return Order(columns, retained, before, pair_rows, tried, complete)


@cache
def compile_kernels() -> None:
    """Compile the loops of `search`, which takes seconds on first use and shall not count as time of a search."""
    search(np.random.default_rng(0).random((4, 16)), seed=0, exchanges=16)


def _worth(x: Array32, order: Indices) -> float:
    return float(stripe_worths(x, order).sum(dtype=np.float64))


def _split_pairs(x: Array32, order: Indices, deadline: float) -> tuple[Indices, int, bool]:
    """Split pairs of stripes until none gains; returns the order, the work, and whether the time sufficed."""
    order, (left, right) = order.copy(), np.triu_indices(len(order) // 4, 1)
    gains, splits = np.zeros(len(left), dtype=np.float32), np.zeros(len(left), dtype=np.int64)
    touched, pair_rows, in_time = np.ones(len(order) // 4, dtype=np.bool_), 0, True
    step, total = max(1, _CHUNK // x.shape[1]), -np.inf
    while in_time and touched.any():
        worths = stripe_worths(x, order)
        # Gains that are rounding after all could go round in circles; the sum ends them.
        if (reached := float(worths.sum(dtype=np.float64))) <= total:
            break
        total = reached
        stale = np.flatnonzero(touched[left] | touched[right])
        gains[stale] = 0
        for start in stoppable(range(0, len(stale), step)):
            chunk = stale[start : start + step]
            gain, best = np.empty(len(chunk), dtype=np.float32), np.empty(len(chunk), dtype=np.int64)
            best_splits(x, order, left[chunk], right[chunk], gain, best)
            gains[chunk], splits[chunk] = gain, best
            pair_rows += len(chunk) * x.shape[1]
            in_time = time.monotonic() < deadline
            if not in_time:
                break
        gaining = np.flatnonzero(gains > _SMALLEST_GAIN * (worths[left] + worths[right]))
        gaining = gaining[np.argsort(-gains[gaining], kind="stable")]
        touched = split_stripes(order, left[gaining], right[gaining], splits[gaining], STRIPE_SPLITS)
    return order, pair_rows, in_time


def _anneal(x: Array32, order: Indices, seed: int, exchanges: int, deadline: float) -> tuple[Indices, int, bool]:
    """Exchange columns at random; returns the order, the exchanges that were tried, and whether the time sufficed."""
    random, order = np.random.default_rng(seed), order.copy()
    worths = stripe_worths(x, order)
    deviations = x.std(axis=1, dtype=np.float64)
    if not deviations.any():
        return order, 0, True
    scale = float(np.quantile(deviations[deviations > 0], _SMALL) * np.sqrt(x.shape[1]))
    tried = 0
    while tried < exchanges:
        stop_if_asked()
        count = min(_EXCHANGES, max(1, _CHUNK // x.shape[1]), exchanges - tried)
        first, second = _partners(x, random, count)
        chance = random.random(count, dtype=np.float32)
        hot, cold = (scale * _HOT * (_COLD / _HOT) ** (done / exchanges) for done in (tried, tried + count))
        anneal(x, order, worths, first, second, chance, hot, cold)
        tried += count
        if time.monotonic() > deadline:
            break
    return order, tried, tried >= exchanges


def _partners(x: Array32, random: np.random.Generator, count: int) -> tuple[Indices, Indices]:
    """Pairs of columns to exchange: any two, or two whose sizes are near in rank, at distances spread as logarithms."""
    sizes, columns = x.sum(axis=1, dtype=np.float64), len(x)
    by_size = np.argsort(sizes, kind="stable")
    spread = float(np.log(sizes[sizes > 0]).std())
    first, anywhere = random.integers(columns, size=(2, count))
    distance = np.floor(columns ** random.random(count)).astype(np.int64) * random.choice((-1, 1), count)
    beside = first + distance
    near = (random.random(count) < spread / (spread + _SPREAD)) & (beside >= 0) & (beside < columns)
    return by_size[first], by_size[np.where(near, beside, anywhere)]
