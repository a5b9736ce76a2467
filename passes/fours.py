"""The rule of N:M sparsity itself, on arrays of any library's tensors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def at_most_two_of_four(occupied: NDArray[Any], axis: int) -> bool:
    """Whether at most 2 of every 4 consecutive places along an axis are occupied; its length is a multiple of 4."""
    return at_most_of_each(occupied, axis, 2, 4)


def at_most_of_each(occupied: NDArray[Any], axis: int, n: int, m: int) -> bool:
    """Whether at most n of every m consecutive places along an axis are occupied; its length is a multiple of m."""
    rows = np.moveaxis(occupied, axis, -1)
    groups = rows.reshape(*rows.shape[:-1], rows.shape[-1] // m, m)
    return bool((np.count_nonzero(groups, axis=-1) <= n).all())
