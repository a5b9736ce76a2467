"""Histograms that are added up, against numpy on all values at once."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunec.calibration.quantization.histograms import BINS, HALF, Histogram
from prunec.passes.errors import NumericMismatchError


def assert_same(found: Histogram, expected: Histogram) -> None:
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert (found.exponent, found.least, found.most) == (expected.exponent, expected.least, expected.most)


def by_numpy(values: np.ndarray) -> Histogram:
    """All values at once; the narrowest power of two above all of them is looked for, not computed."""
    values = values.astype(np.float64)
    exponent = -126
    while exponent < 1024 and not (np.abs(values) < math.ldexp(1, exponent)).all():
        exponent += 1
    positions = np.floor(np.abs(values) / math.ldexp(1 / HALF, exponent)).astype(int)
    bins = np.where(values < 0, HALF - 1 - positions, HALF + positions)
    counts = np.bincount(bins, minlength=BINS)
    return Histogram(counts, exponent, values.min(initial=math.inf), values.max(initial=-math.inf))


def numbers(dtype: type[np.floating]) -> st.SearchStrategy[np.ndarray]:
    """Values of all magnitudes, and of one, edges of bins and zeros of both signs among them."""
    bits = np.dtype(dtype).itemsize * 8
    some = st.floats(allow_nan=False, allow_infinity=False, width=bits) | st.sampled_from([0.0, -0.0, 1, -1, 0.5, 6])
    return arrays(dtype, st.integers(0, 30), elements=some | st.floats(-2, 2, width=bits))


@given(
    st.sampled_from([np.float16, np.float32, np.float64]).flatmap(lambda d: st.lists(numbers(d), min_size=1)), st.data()
)
def test_neither_order_nor_split_changes_a_histogram(parts: list[np.ndarray], data: st.DataObject) -> None:
    expected = by_numpy(np.concatenate(parts))
    histograms = data.draw(st.permutations([Histogram.of(torch.from_numpy(part)) for part in parts]))
    while len(histograms) > 1:  # pairs anywhere, so that sums of sums are added too
        at = data.draw(st.integers(0, len(histograms) - 2))
        histograms[at : at + 2] = [histograms[at] + histograms[at + 1]]
    assert_same(histograms[0], expected)
    assert histograms[0].count == sum(part.size for part in parts)


def test_values_count_in_any_memory_order_and_as_often_as_they_are_expanded() -> None:
    x = torch.randn(4, 8, 6, 6)
    expected = Histogram.of(x)
    assert_same(Histogram.of(x.contiguous(memory_format=torch.channels_last)), expected)
    assert_same(Histogram.of(x.permute(3, 1, 0, 2)), expected)
    assert Histogram.of(torch.ones(1).expand(1000)).count == 1000
    assert_same(Histogram.of(x.requires_grad_()), expected)


def test_bfloat16_is_counted_exactly() -> None:
    x = torch.randn(1000).bfloat16()
    assert_same(Histogram.of(x), Histogram.of(x.float()))


@pytest.mark.parametrize("largest", [2.0**60, -(2.0**100), 3e38])
def test_values_beyond_whole_numbers_of_64_bits(largest: float) -> None:
    histogram = Histogram.of(torch.tensor([1.0, largest]))
    assert sorted((histogram.least, histogram.most)) == sorted((1.0, torch.tensor(largest).item()))
    outer = histogram.counts[: BINS // 4].sum() + histogram.counts[-BINS // 4 :].sum()
    assert (histogram.counts[HALF], outer) == (1, 1)
    assert abs(largest) / histogram.width >= HALF / 2


def test_a_tensor_without_values_changes_nothing() -> None:
    nothing, x = Histogram.of(torch.empty(0, 3)), torch.randn(100) * 1e-30
    assert (nothing.count, nothing.least, nothing.most) == (0, math.inf, -math.inf)
    assert_same(nothing + Histogram.of(x), Histogram.of(x))
    assert_same(Histogram.of(x) + nothing, Histogram.of(x))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_refused(bad: float, dtype: torch.dtype) -> None:
    x = torch.randn(100).to(dtype)
    x[57] = bad
    with pytest.raises(NumericMismatchError, match="finite"):
        Histogram.of(x)
