"""Grids hold their ranges, zero exactly, and have scales that are never zero."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunec.passes.errors import NumericMismatchError
from prunec.passes.quantization.grids import WEIGHT_LIMIT, Form, Range, grid_of, weight_scales

VALUES = st.floats(-1e30, 1e30, allow_subnormal=False)
FORMS = st.sampled_from(["symmetric", "affine"])


@given(VALUES, VALUES, FORMS)
def test_a_grid_holds_its_range_to_half_a_step_and_zero_exactly(first: float, second: float, form: Form) -> None:
    low, high = sorted((first, second))
    grid = grid_of(Range(low, high), form)
    assert grid.scale > 0
    assert grid.least <= grid.zero_point <= grid.most
    half = grid.scale * (0.5 + 1e-6)
    assert grid.range.low - half <= low
    assert high <= grid.range.high + half
    assert grid.zero_point == 0 or form == "affine"


@given(st.floats(0, 1e30), FORMS)
def test_a_grid_is_no_wider_than_its_range_asks(high: float, form: Form) -> None:
    """The step is the least that 8 bits allow, and never one that float16 hasn't."""
    step = high / (255 if form == "affine" else 127)
    assert grid_of(Range(0, high), form).scale == (max(step, 2.0**-24) if step > 0 else 1 / 127)


@given(st.lists(st.tuples(VALUES, VALUES).map(sorted), min_size=1, max_size=4))
def test_the_union_of_ranges_holds_all_of_them(bounds: list[list[float]]) -> None:
    whole = Range(*bounds[0])
    for low, high in bounds[1:]:
        whole |= Range(low, high)
    assert (whole.low, whole.high) == (min(low for low, _ in bounds), max(high for _, high in bounds))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_range_must_be_finite(bad: float) -> None:
    for low, high in ((bad, 1.0), (-1.0, bad)):
        with pytest.raises(NumericMismatchError, match="must be finite"):
            Range(low, high)


def test_a_range_must_not_be_the_wrong_way_round() -> None:
    with pytest.raises(ValueError, match="must begin below its end"):
        Range(1.0, 0.0)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_keep_their_zeros_and_are_rounded_by_half_a_step(axis: int) -> None:
    weight = torch.randn(6, 5, 3, 3)
    weight[torch.rand(weight.shape) < 0.5] = 0
    weight.select(axis, 2).zero_()
    scales = weight_scales(weight, axis)
    assert (scales.shape, scales.dtype) == ((weight.shape[axis],), torch.float32)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -WEIGHT_LIMIT - 1, WEIGHT_LIMIT)
    steps = scales.view([-1 if dim == axis else 1 for dim in range(4)])
    assert bool(((rounded - weight).abs() <= steps * 0.5001).all())
    assert not rounded[weight == 0].any()
    assert scales[2] == scales.max(), "a channel of zeros has the largest scale of the others"
    assert not (rounded / steps).round().abs().gt(WEIGHT_LIMIT).any(), "the grid's odd end is not used"


def test_a_weight_of_zeros_has_a_scale() -> None:
    assert bool((weight_scales(torch.zeros(3, 4), 0) == 1 / 127).all())
