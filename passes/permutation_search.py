"""Search for an order of columns in which 2:4 sparsity keeps more magnitude.

Pairs of stripes of four columns are split anew, the best first, until no split of any pair gains (Pool and Yu, "Channel
Permutations for N:M Sparsity", NeurIPS 2021). Then simulated annealing exchanges columns at random, which finds what
pairs of stripes can't, and the pairs are split once more.
"""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.passes.permutation_kernels import SPLITS, Floats, Indices, anneal, best_splits, split_stripes, stripe_worths

#: Work between two looks at the clock, in pairs of stripes times rows; it takes about a tenth of a second.
_CHUNK = 10_000_000
#: Share of a stripe's worth below which a gain is rounding.
_SMALLEST_GAIN = 1e-6
#: Temperatures of the annealing, in standard deviations of what an exchange gains.
_HOT, _COLD = 0.15, 0.02
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


def _worth(x: Floats, order: Indices) -> float:
    return float(stripe_worths(x, order).sum(dtype=np.float64))


def _split_pairs(x: Floats, order: Indices, deadline: float) -> tuple[Indices, int, bool]:
    """Split pairs of stripes until none gains; returns the order, the work, and whether the time sufficed."""
    order, (left, right) = order.copy(), np.triu_indices(len(order) // 4, 1)
    gains, splits = np.zeros(len(left), dtype=np.float32), np.zeros(len(left), dtype=np.int64)
    touched, pair_rows, in_time = np.ones(len(order) // 4, dtype=np.bool_), 0, True
    step = max(1, _CHUNK // x.shape[1])
    while in_time and touched.any():
        worths = stripe_worths(x, order)
        stale = np.flatnonzero(touched[left] | touched[right])
        gains[stale] = 0
        for start in range(0, len(stale), step):
            chunk = stale[start : start + step]
            gain, best = np.empty(len(chunk), dtype=np.float32), np.empty(len(chunk), dtype=np.int64)
            best_splits(x, order, worths, left[chunk], right[chunk], gain, best)
            gains[chunk], splits[chunk] = gain, best
            pair_rows += len(chunk) * x.shape[1]
            in_time = time.monotonic() < deadline
            if not in_time:
                break
        gaining = np.flatnonzero(gains > _SMALLEST_GAIN * worths.mean())
        gaining = gaining[np.argsort(-gains[gaining], kind="stable")]
        touched = split_stripes(order, left[gaining], right[gaining], splits[gaining], SPLITS)
    return order, pair_rows, in_time


def _anneal(x: Floats, order: Indices, seed: int, exchanges: int, deadline: float) -> tuple[Indices, int, bool]:
    """Exchange columns at random; returns the order, the exchanges that were tried, and whether the time sufficed."""
    random, order = np.random.default_rng(seed), order.copy()
    worths = stripe_worths(x, order)
    scale = float(np.sqrt(x.var(axis=0).sum(dtype=np.float64)))
    if not scale:
        return order, 0, True
    tried = 0
    while tried < exchanges:
        count = min(_EXCHANGES, max(1, _CHUNK // x.shape[1]), exchanges - tried)
        first, second = random.integers(len(order), size=(2, count))
        chance = random.random(count, dtype=np.float32)
        hot, cold = (scale * _HOT * (_COLD / _HOT) ** (done / exchanges) for done in (tried, tried + count))
        anneal(x, order, worths, first, second, chance, hot, cold)
        tried += count
        if time.monotonic() > deadline:
            break
    return order, tried, tried >= exchanges
