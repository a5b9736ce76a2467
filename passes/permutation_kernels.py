"""Compiled loops of the channel permutation search, over magnitudes stored column by column.

``x`` is float32 (columns, rows); ``order`` int64 (columns,), whose consecutive fours are the stripes that 2:4 sparsity
is applied in. A stripe's worth is the sum over rows of its two largest magnitudes.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array32 = NDArray[np.float32]
Indices = NDArray[np.int64]

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile a function when it is first called."""
    return cast(F, njit(fastmath=True)(function))


#: The 35 ways to split eight columns into two stripes, int64 (35, 8): the first stripe, then the second.
STRIPE_SPLITS: Indices = np.array(
    [[0, *rest, *sorted(set(range(1, 8)) - set(rest))] for rest in combinations(range(1, 8), 3)], dtype=np.int64
)


def _written_out() -> str:
    """Source of `worths_of_splits`, with the 35 splits written out so that the compiler keeps all in vector registers.

    The two largest of a, b, c, d add up to max(a + b, c + d, max(a, b) + max(c, d)), so that 28 sums and 28 maxima of
    pairs serve all splits.
    """

    def top2(a: int, b: int, c: int, d: int) -> str:
        return f"max(max(s{a}{b}, s{c}{d}), m{a}{b} + m{c}{d})"

    splits, pairs = list(enumerate(STRIPE_SPLITS.tolist())), combinations(range(8), 2)
    lines = [
        "def worths_of_splits(x, eight, worths):",
        *(f"    c{i} = x[eight[{i}]]" for i in range(8)),
        *(f"    t{n} = float32(0)" for n, _ in splits),
        "    for row in range(x.shape[1]):",
        *(f"        a{i} = c{i}[row]" for i in range(8)),
        *(f"        s{i}{j} = a{i} + a{j}; m{i}{j} = max(a{i}, a{j})" for i, j in pairs),
        *(f"        t{n} += {top2(*split[:4])} + {top2(*split[4:])}" for n, split in splits),
        *(f"    worths[{n}] = t{n}" for n, _ in splits),
    ]
    return "\n".join(lines)


_names: dict[str, Any] = {"float32": np.float32}
exec(_written_out(), _names)
worths_of_splits: Callable[..., Any] = compiled(_names["worths_of_splits"])


@compiled
def stripe_worth(x: Array32, a: int, b: int, c: int, d: int) -> np.float32:
    """Worth of the stripe of four columns."""
    xa, xb, xc, xd = x[a], x[b], x[c], x[d]
    total = np.float32(0)
    for row in range(xa.size):
        p, q, u, v = xa[row], xb[row], xc[row], xd[row]
        total += max(p + q, u + v, max(p, q) + max(u, v))
    return total


@compiled
def stripe_worths(x: Array32, order: Indices) -> Array32:
    """Worth of every stripe."""
    worths = np.empty(order.size // 4, dtype=np.float32)
    for i in range(worths.size):
        worths[i] = stripe_worth(x, order[4 * i], order[4 * i + 1], order[4 * i + 2], order[4 * i + 3])
    return worths


@compiled
def best_splits(x: Array32, order: Indices, left: Indices, right: Indices, gains: Array32, splits: Indices) -> None:
    """Write the best of the 35 splits of each pair of stripes to `splits`, and its gain to `gains`.

    A gain is measured against the first split, which leaves both as they are: sums taken in one loop round alike.
    """
    split_worths = np.empty(35, dtype=np.float32)
    eight = np.empty(8, dtype=np.int64)
    for n in range(left.size):
        i, j = left[n], right[n]
        eight[:4] = order[4 * i : 4 * i + 4]
        eight[4:] = order[4 * j : 4 * j + 4]
        worths_of_splits(x, eight, split_worths)
        best = np.argmax(split_worths)
        gains[n] = split_worths[best] - split_worths[0]
        splits[n] = best


@compiled
def split_stripes(order: Indices, left: Indices, right: Indices, splits: Indices, table: Indices) -> NDArray[np.bool_]:
    """Split pairs of stripes in this order, each stripe at most once; tells which stripes were split."""
    touched = np.zeros(order.size // 4, dtype=np.bool_)
    eight = np.empty(8, dtype=np.int64)
    for n in range(left.size):
        i, j = left[n], right[n]
        if touched[i] or touched[j]:
            continue
        touched[i] = touched[j] = True
        eight[:4] = order[4 * i : 4 * i + 4]
        eight[4:] = order[4 * j : 4 * j + 4]
        for k in range(4):
            order[4 * i + k] = eight[table[splits[n], k]]
            order[4 * j + k] = eight[table[splits[n], 4 + k]]
    return touched


@compiled
def anneal(
    x: Array32,
    order: Indices,
    worths: Array32,
    first: Indices,
    second: Indices,
    chance: Array32,
    hot: float,
    cold: float,
) -> None:
    """Exchange columns of two stripes, one pair after the other, also at a loss while the temperature allows it.

    Args:
        x: Magnitudes.
        order: Order of the columns; it is changed in place.
        worths: Worths of the stripes; they are changed in place.
        first: Columns to exchange.
        second: Columns that they are exchanged with.
        chance: Uniform numbers in 0 .. 1 that decide on losses.
        hot: Temperature at the first exchange, in units of worth.
        cold: Temperature at the last exchange.
    """
    ratio = (cold / hot) ** (1.0 / max(1, first.size))
    temperature = hot
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    for n in range(first.size):
        temperature *= ratio
        a, b = place[first[n]], place[second[n]]
        i, j = a // 4, b // 4
        if i == j:
            continue
        order[a], order[b] = order[b], order[a]
        left = stripe_worth(x, order[4 * i], order[4 * i + 1], order[4 * i + 2], order[4 * i + 3])
        right = stripe_worth(x, order[4 * j], order[4 * j + 1], order[4 * j + 2], order[4 * j + 3])
        gain = left + right - worths[i] - worths[j]
        if gain >= 0 or chance[n] < np.exp(gain / temperature):
            worths[i], worths[j] = left, right
            place[first[n]], place[second[n]] = b, a
        else:
            order[a], order[b] = order[b], order[a]
