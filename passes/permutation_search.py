"""Search for an order of columns in which 2:4 sparsity keeps more magnitude.

Pairs of stripes of four columns are split anew, the best first, until no split of any pair gains (Pool and Yu, "Channel
Permutations for N:M Sparsity", NeurIPS 2021). Then columns are exchanged at random by simulated annealing, which finds
what pairs of stripes can't, and the pairs once more.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

#: Work between two looks at the clock, in rows of pairs of stripes: about a tenth of a second.
_CHUNK = 10_000_000
#: Gains below this share of a stripe's worth are rounding.
_SMALLEST_GAIN = 1e-6
#: Temperatures of the annealing, in standard deviations of what an exchange gains.
_HOT, _COLD = 0.15, 0.02
#: Exchanges between two drawings of random numbers.
_EXCHANGES = 1_000_000


@dataclass(frozen=True)
class Order:
    """Result of a search.

    Attributes:
        columns: the column at each position, int64 (columns,).
        retained: magnitude that 2:4 keeps in this order.
        retained_before: the same in the given order.
        pair_rows: work done on pairs of stripes: pairs times rows.
        exchanges: tried in the annealing.
        complete: whether the search ended by itself; False where the time was up.
    """

    columns: Indices
    retained: float
    retained_before: float
    pair_rows: int
    exchanges: int
    complete: bool


def retained_magnitude(matrix: NDArray[Any]) -> float:
    """What 2:4 keeps of a matrix (rows, columns) of magnitudes, columns a multiple of 4: two of every four."""
    fours = np.sort(np.abs(matrix).reshape(len(matrix), -1, 4), axis=2)
    return float(fours[..., 2:].sum(dtype=np.float64))


def efficacy(matrix: NDArray[Any], retained: float) -> float:
    """Share of the loss of 2:4 that an order undoes, where 1 is each row's own larger half kept.

    Args:
        matrix: (rows, columns), in the order before.
        retained: magnitude kept in the new one.
    """
    magnitudes = np.sort(np.abs(matrix), axis=1)
    best = float(magnitudes[:, magnitudes.shape[1] // 2 :].sum(dtype=np.float64))
    before = retained_magnitude(matrix)
    return (retained - before) / (best - before) if best > before else 0.0


def search(matrix: NDArray[Any], seed: int, seconds: float = np.inf, exchanges: int = 0) -> Order:
    """Order the columns of a matrix of weights.

    The result depends on the seed alone, unless the time is up before the search is done.

    Args:
        matrix: (rows, columns), columns a multiple of 4.
        seed: of the annealing.
        seconds: of wall-clock time after which the best order so far is returned.
        exchanges: tried in the annealing; 0 for the pairs of stripes alone.
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
    """Compile what `search` runs, which takes seconds on first use and shall not count as its time."""
    search(np.random.default_rng(0).random((4, 16)), seed=0, exchanges=16)


def _worth(x: Floats, order: Indices) -> float:
    from prunec.passes.permutation_kernels import stripe_worths

    return float(stripe_worths(x, order).sum(dtype=np.float64))


def _split_pairs(x: Floats, order: Indices, deadline: float) -> tuple[Indices, int, bool]:
    """Split pairs of stripes until none gains: the order, the work, whether that was reached in time."""
    from prunec.passes.permutation_kernels import SPLITS, best_splits, split_stripes, stripe_worths

    order, (left, right) = order.copy(), np.triu_indices(len(order) // 4, 1)
    gains, splits = np.zeros(len(left), dtype=np.float32), np.zeros(len(left), dtype=np.int64)
    touched, pair_rows, in_time = np.ones(len(order) // 4, dtype=np.bool_), 0, True
    while in_time and touched.any():
        worths = stripe_worths(x, order)
        stale = np.flatnonzero(touched[left] | touched[right])
        gains[stale] = 0
        for chunk in _chunks(stale, x.shape[1]):
            found, best = np.empty(len(chunk), dtype=np.float32), np.empty(len(chunk), dtype=np.int64)
            best_splits(x, order, worths, left[chunk], right[chunk], found, best)
            gains[chunk], splits[chunk] = found, best
            pair_rows += len(chunk) * x.shape[1]
            in_time = time.monotonic() < deadline
            if not in_time:
                break
        gaining = np.flatnonzero(gains > _SMALLEST_GAIN * worths.mean())
        gaining = gaining[np.argsort(-gains[gaining], kind="stable")]
        touched = split_stripes(order, left[gaining], right[gaining], splits[gaining], SPLITS)
    return order, pair_rows, in_time


def _chunks(pairs: Indices, rows: int) -> Iterator[Indices]:
    size = max(1, _CHUNK // rows)
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def _anneal(x: Floats, order: Indices, seed: int, exchanges: int, deadline: float) -> tuple[Indices, int, bool]:
    """Exchange columns at random: the order, the exchanges tried, whether all were."""
    from prunec.passes.permutation_kernels import anneal, stripe_worths

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
