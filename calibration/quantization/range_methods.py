"""Ranges of values chosen by their histograms: what a grid holds, and what it clips for finer steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from prunec.calibration.quantization.histograms import HALF, Counts, Histogram
from prunec.calibration.quantization.rounding_error import level_ends, squared_error
from prunec.passes.graphs import arguments
from prunec.passes.program import Program
from prunec.passes.quantization.grids import COARSE_SCALE, Form, Range, is_too_narrow
from prunec.passes.quantization.method_names import MethodName
from prunec.passes.quantization.placement import Placement
from prunec.passes.quantization.quantizers import quantizers

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

#: Octaves below the full range that the method "mse" searches.
_OCTAVES = 8
#: Windows whose divergences the method "entropy" compares.
_WINDOWS = 256


@dataclass(frozen=True)
class RangeMethod:
    """How the range of a tensor follows from its histogram.

    - "min-max": from the smallest to the largest value.
    - "percentile": a share of the values, those that lie closest to 0 on a symmetric grid; on an affine one as many are
      left out at either end, and at one end only of a tensor whose values have one sign.
    - "entropy": the window in which rounding changes the distribution least, by the Kullback-Leibler divergence of the
      clipped values' histogram from its form with as many levels as the grid has (Migacz, "8-bit inference with
      TensorRT", GTC 2017). The bin at 0 counts as its neighbour does, as in NVIDIA's pytorch-quantization: zeros lie on
      every grid. On an affine grid both ends of the window move in proportion.
    - "mse": the least mean squared error of rounding to the grid and clipping.

    Attributes:
        method: The name.
        percentile: Share of the values by "percentile", in percent.
    """

    method: MethodName = "mse"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise ValueError(f"a percentile of a range must be above 50 and at most 100, got {self.percentile}")

    def range_of(self, histogram: Histogram, form: Form) -> Range:
        """The range of a tensor for grids of a form; 0 to 0 where it has no values."""
        if not histogram.count:
            return Range(0.0, 0.0)
        everything = Range(histogram.least, histogram.most)
        if self.method == "min-max" or histogram.least == histogram.most:
            return everything
        if self.method == "percentile":
            return _percentile(histogram, form, self.percentile / 100)
        return {"entropy": _least_divergence, "mse": _least_error}[self.method](histogram, form)


def ranges_of(
    placement: Placement, histograms: Mapping[str, Histogram], method: RangeMethod, form: Form
) -> Mapping[str, Range]:
    """The range of each family of a placement's sites, which is that of all its sites' values.

    Args:
        placement: The tensors.
        histograms: The histogram of every site, by its source, from `observe`.
        method: How a range follows from a histogram.
        form: The grids that the ranges are for.
    """
    return {family: method.range_of(each, form) for family, each in _families(placement, histograms).items()}


def fallbacks(placement: Placement, histograms: Mapping[str, Histogram], form: Form) -> Mapping[str, str]:
    """The families whose values tell no range or hardly any, and what is the matter with each.

    Their grids are those of `grid_of`: of zeros and no values a grid of any scale, of a constant one that holds it.
    """
    oddities = {family: _oddity(each, form) for family, each in _families(placement, histograms).items()}
    return {family: oddity for family, oddity in oddities.items() if oddity}


def weight_fallbacks(placement: Placement, quantized: Program, form: Form) -> Mapping[str, str]:
    """The weights of a quantized program for which float16 has next to no scales, and for how many of their grids.

    Such grids are wider than the weights, and those of weights that are smaller still are as wide. Files for CPUs hold
    scales in float32: for them there are none.
    """
    if form == "affine":
        return {}
    coarse, tensors, sources = dict[str, str](), quantized.tensors(), {each.source for each in placement.weights}
    for quantizer in quantizers(quantized.graph):
        if quantizer.source.name not in sources:
            continue
        scale = arguments(quantizer.node)["scale"]
        scales = tensors[str(scale.target)] if isinstance(scale, Node) else torch.tensor([scale])
        if small := int((scales <= COARSE_SCALE).sum()):
            source = quantizer.source
            name = str(source.target) if source.op == "get_attr" else source.name
            coarse[name] = f"weights so small that float16 has next to no scales for {small} of {scales.numel()} grids"
    return coarse


def _families(placement: Placement, histograms: Mapping[str, Histogram]) -> dict[str, Histogram]:
    members: dict[str, list[Histogram]] = {}
    for site in placement.sites:
        members.setdefault(site.family, []).append(histograms[site.source])
    return {family: reduce(add, each) for family, each in members.items()}


def _oddity(histogram: Histogram, form: Form) -> str:
    """What is the matter with a tensor's values; empty where nothing is."""
    if not histogram.count:
        return "no values"
    least, most = histogram.least, histogram.most
    if least == most:
        return f"the constant {least:.6g}"
    if is_too_narrow(Range(least, most), form):
        return f"values of {least:.3g} to {most:.3g}, for which no scale of float16 is small enough"
    return ""


def _clipped(histogram: Histogram, low_bins: float, high_bins: float) -> Range:
    """The range between bounds in widths of bins, no farther than the values go; it holds 0."""
    low = max(min(low_bins, 0) * histogram.width, min(histogram.least, 0.0))
    high = min(max(high_bins, 0) * histogram.width, max(histogram.most, 0.0))
    return Range(low + 0.0, high)


def _magnitudes(histogram: Histogram) -> Counts:
    """The number of values in each bin of magnitudes, int64 (HALF,)."""
    return histogram.counts[HALF:] + histogram.counts[:HALF][::-1]


def _percentile(histogram: Histogram, form: Form, share: float) -> Range:
    if form != "affine":
        bound = _end_of(_magnitudes(histogram), share)
        return _clipped(histogram, -bound, bound)
    has_both_signs = histogram.least < 0 < histogram.most
    share = (1 + share) / 2 if has_both_signs else share
    low, high = (_end_of(counts, share) - HALF for counts in (histogram.counts[::-1], histogram.counts))
    return _clipped(histogram, -low, high)


def _end_of(counts: Counts, share: float) -> int:
    """How many of the first bins hold a share of all values, at least."""
    sums = np.cumsum(counts)
    return int(np.searchsorted(sums, share * sums[-1])) + 1


def _least_error(histogram: Histogram, form: Form) -> Range:
    """The range with the least mean squared error.

    Both ends are moved in proportion first, then, where each matters for itself, one after the other. Up to ripples
    of the rounded zero point the error is convex in both ends, as that of rounding and of clipping are; on grids of
    floating point it has a minimum in every octave.
    """
    error = squared_error(histogram, form)
    least, most = min(histogram.least, 0.0), max(histogram.most, 0.0)
    factor = _best_factor(lambda f: error(f * least, f * most), 1 / 32 if form == "float8" else 1 / 4)
    if form != "affine":
        bound = factor * max(-least, most) / histogram.width
        return _clipped(histogram, -bound, bound)
    low, high = factor * least, factor * most
    for _ in range(2 if least < 0 < most else 0):
        low = least * _best_factor(lambda f, high=high: error(f * least, high))  # type: ignore[misc]
        high = most * _best_factor(lambda f, low=low: error(low, f * most))  # type: ignore[misc]
    return Range(low + 0.0, high)


def _best_factor(error: Callable[[float], float], step: float = 1 / 4) -> float:
    """The factor, of 1 to 2**-8, with the least error: by parts of octaves, then twice by quarters of these."""
    octaves = np.arange(0, _OCTAVES + step, step)
    for _ in range(3):
        best = min(octaves, key=lambda octave: error(2.0**-octave))
        step /= 4
        octaves = np.unique(np.clip(best + step * np.arange(-3, 4), 0, _OCTAVES))
    return float(2.0 ** -min(octaves, key=lambda octave: error(2.0**-octave)))


def _least_divergence(histogram: Histogram, form: Form) -> Range:
    """The range of the window with the least divergence, the widest of equals."""
    split = level_ends(form)
    counts, zero = (histogram.counts.copy(), HALF) if form == "affine" else (_magnitudes(histogram), 0)
    filled = np.flatnonzero(counts)
    below, above = max(zero - int(filled[0]), 0), max(int(filled[-1]) + 1 - zero, 0)
    counts[zero] = counts[zero + 1]
    shares = np.linspace(1, min((len(split) - 1) / (below + above), 1), _WINDOWS)
    below_zero, above_zero = (np.rint(shares * bins).astype(np.int64) for bins in (below, above))
    begins, ends = _ending_in_values(counts, zero - below_zero, zero + above_zero)
    best = int(np.argmin(_divergences(counts, begins, ends, split)))
    bound = int(ends[best]) - zero
    return _clipped(histogram, -bound if form != "affine" else int(begins[best]) - zero, bound)


def _ending_in_values(counts: Counts, begins: Places, ends: Places) -> tuple[Places, Places]:
    """Windows cut to bins with values, of which what lies outside becomes a part; no end moves with nothing outside."""
    places, sums = np.arange(len(counts)), _sums(counts)
    filled_after = np.minimum.accumulate(np.where(counts, places, len(counts))[::-1])[::-1]
    filled_before = np.maximum.accumulate(np.where(counts, places, -1))
    return (
        np.where(sums[begins] > 0, filled_after[begins], begins),
        np.where(sums[ends] < sums[-1], filled_before[ends - 1] + 1, ends),
    )


def _divergences(counts: Counts, begins: Places, ends: Places, split: Places) -> Floats:
    """The divergence of P, the clipped values in each window of bins, from Q, which has a window's bins in levels.

    P has what lies outside in the window's first and last bins; Q has nothing of it, and spreads a level's values
    evenly over those of its bins that hold any. All follows from sums of counts up to the levels' edges. A window with
    fewer bins than levels, or without values, diverges infinitely. ``split`` is `level_ends`.
    """
    valid = ends - begins >= len(split) - 1
    begins, ends = (np.where(valid, each, whole) for each, whole in ((begins, 0), (ends, len(counts))))
    edges = begins[:, None] + -(-(ends - begins)[:, None] * split // split[-1])
    sums = _sums(counts)
    total = max(int(sums[-1]), 1)
    mass, bins = np.diff(sums[edges]), np.diff(_sums(counts > 0)[edges])
    inside, below, above = sums[ends] - sums[begins], sums[begins], sums[-1] - sums[ends]
    log_q = np.log(np.maximum(mass, 1) / np.maximum(bins, 1))
    cross = (mass * log_q).sum(1) + below * log_q[:, 0] + above * log_q[:, -1]
    own = np.diff(_sums(_x_log_x(counts))[np.stack([begins, ends])], axis=0)[0]
    for outside, last in ((below, counts[begins]), (above, counts[ends - 1])):
        own += _x_log_x(last + outside) - _x_log_x(last)
    divergences = (own - cross) / total + np.log(np.maximum(inside, 1) / total)
    return np.where(valid & (inside > 0), divergences, np.inf)


def _sums(values: NDArray[Any]) -> NDArray[Any]:
    """Sums of all values before each place, and of all."""
    return np.concatenate([[0], np.cumsum(values)])


def _x_log_x(counts: Counts) -> Floats:
    return counts.astype(np.float64) * np.log(np.maximum(counts, 1))
