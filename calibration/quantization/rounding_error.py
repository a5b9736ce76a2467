"""The error of rounding a histogram's values to a grid, and the levels of grids."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prunec.calibration.quantization.histograms import HALF, Histogram
from prunec.passes.own_operators import float8_numbers
from prunec.passes.quantization.grids import WEIGHT_LIMIT, Form, Grid, Range, grid_of

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

#: The numbers of E4M3 from 0 on, what lies in the middle between each and the next, and the integral of the squared
#: error from 0 to each.
_FLOAT8 = float8_numbers().numpy()
_FLOAT8_MIDDLES = (_FLOAT8[1:] + _FLOAT8[:-1]) / 2
_FLOAT8_SUMS = np.concatenate([[0], np.cumsum(np.diff(_FLOAT8) ** 3 / 12)])
#: What makes whole numbers of all middles.
_FLOAT8_DENOMINATOR = 2**10


def squared_error(histogram: Histogram, form: Form) -> Callable[[float, float], float]:
    """The sum of squared errors on the grid of a range from low to high, in squared widths of bins.

    Values are taken to lie evenly in their bins. With F the integral of the squared error from 0, a bin's values
    contribute their count times the difference of F between its edges; summed by parts, F at each edge times the change
    of counts there.
    """
    changes = -np.diff(histogram.counts, prepend=0, append=0)
    places = np.flatnonzero(changes)
    edges, weights = (places - HALF).astype(np.float64), changes[places].astype(np.float64)

    def error(low: float, high: float) -> float:
        grid = grid_of(Range(low, high), form)
        scale = grid.scale / histogram.width
        return float(weights @ _integral(edges / scale, grid)) * scale**3

    return error


def _integral(steps: Floats, grid: Grid) -> Floats:
    """The integral of the squared error from 0 to values in steps of a grid, beyond the grid's ends too.

    For a value q + r, where q is the nearest number of the grid, it is r**3 / 3 more than up to q, and that is q / 12
    where numbers are whole.
    """
    if not grid.is_float8:
        nearest = np.clip(np.rint(steps), grid.least - grid.zero_point, grid.most - grid.zero_point)
        rest = steps - nearest
        whole: Floats = nearest / 12 + rest * rest * rest / 3
        return whole
    sizes = np.abs(steps)
    numbers = np.searchsorted(_FLOAT8_MIDDLES, sizes)
    rest = sizes - _FLOAT8[numbers]
    float8: Floats = np.sign(steps) * (_FLOAT8_SUMS[numbers] + rest * rest * rest / 3)
    return float8


def level_ends(form: Form) -> Places:
    """Where the values end that are rounded to one number of a grid, as shares of the last of these ends.

    They are of magnitudes where the grid is symmetric. Those of whole numbers are equal parts.
    """
    if form == "float8":
        ends = np.concatenate([[0], _FLOAT8_MIDDLES, _FLOAT8[-1:]]) * _FLOAT8_DENOMINATOR
        return ends.astype(np.int64)
    return np.arange((1 if form == "symmetric" else 2) * (WEIGHT_LIMIT + 1) + 1)
