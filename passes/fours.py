"""The 2:4 rule itself, on arrays of any library's tensors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def at_most_two_of_four(occupied: NDArray[Any], axis: int) -> bool:
    """Whether at most 2 of every 4 consecutive places along an axis are occupied; its length is a multiple of 4."""
    rows = np.moveaxis(occupied, axis, -1)
    fours = rows.reshape(*rows.shape[:-1], rows.shape[-1] // 4, 4)
    return bool((np.count_nonzero(fours, axis=-1) <= 2).all())
