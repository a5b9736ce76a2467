"""Grids hold their ranges, zero exactly, and have scales that are never zero."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunec.passes.errors import NumericMismatchError
from prunec.passes.own_operators import FLOAT8_PER_CHANNEL, float8_numbers
from prunec.passes.quantization.grids import (
    WEIGHT_LIMIT,
    Form,
    Range,
    float8_grid,
    grid_of,
    is_too_narrow,
    largest_number,
    rounded_weight,
    weight_scales,
)

VALUES = st.floats(-1e30, 1e30, allow_subnormal=False)
FORMS = st.sampled_from(["symmetric", "affine"])
FINITE = st.floats(-1e6, 1e6, width=32)


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
    """The step is the least that 8 bits allow, and never one that float16, or float32 in files for CPUs, hasn't."""
    least = 2.0**-126 if form == "affine" else 2.0**-24
    step = high / (255 if form == "affine" else 127)
    assert grid_of(Range(0, high), form).scale == (max(step, least) if step > 0 else 1 / 127)


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


@given(VALUES, VALUES)
def test_a_grid_of_floating_point_ends_where_its_range_does(first: float, second: float) -> None:
    """At a scale that float16 has, where it is not beyond it; E4M3 is as dense at any scale."""
    bound = max(abs(first), abs(second))
    grid = grid_of(Range(min(first, second), max(first, second)), "float8")
    exact = bound / 448
    assert grid.zero_point == 0
    if 2.0**-14 <= exact <= 65504:
        assert float(np.float16(grid.scale)) == grid.scale
        assert exact <= grid.scale <= exact * (1 + 2.0**-10)
    elif exact > 65504:
        assert grid.scale == exact
    else:
        assert exact <= grid.scale <= exact + 2.0**-24 or exact == 0


@given(arrays(np.float32, st.integers(1, 60), elements=FINITE), st.floats(2.0**-20, 100))
def test_values_round_to_the_nearest_number_of_e4m3(x: np.ndarray, scale: float) -> None:
    """As ml_dtypes rounds, which is another implementation, of one that is clipped first."""
    scale = float(np.float16(scale))
    rounded = float8_grid(scale).rounded(torch.from_numpy(x)).numpy()
    steps = np.clip(x / np.float32(scale), -448, 448)
    expected = steps.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(scale)
    assert np.array_equal(rounded, expected)
    numbers = float8_numbers().numpy()
    nearest = np.abs(np.abs(steps.astype(np.float64))[:, None] - numbers).min(1)
    assert np.array_equal(np.abs(np.abs(steps.astype(np.float64)) - np.abs(expected / scale)), nearest)


@given(
    arrays(np.float32, (3, 4), elements=FINITE), st.lists(st.floats(2.0**-20, 100, width=32), min_size=3, max_size=4)
)
def test_slices_round_as_tensors_do(x: np.ndarray, scales: list[float]) -> None:
    weight, axis = torch.from_numpy(x), 1 if len(scales) == 4 else 0
    together = FLOAT8_PER_CHANNEL(weight, torch.tensor(scales), axis)
    for place, scale in enumerate(scales):
        alone = float8_grid(scale).rounded(weight.select(axis, place))
        assert torch.equal(together.select(axis, place), alone)


def test_what_is_beyond_the_grid_becomes_its_end_and_nan_stays() -> None:
    x = torch.tensor([1e30, -1e30, math.inf, math.nan, 0.0])
    rounded = float8_grid(0.5).rounded(x)
    assert rounded[:3].tolist() == [224, -224, 224]
    assert bool(rounded[3].isnan())
    assert rounded[4] == 0


def test_scales_of_weights_in_floating_point_are_held_by_float16() -> None:
    scales = weight_scales(torch.randn(8, 5) * torch.logspace(-6, 3, 8)[:, None], 0, "float8")
    assert torch.equal(scales.half().float(), scales)
    assert bool((weight_scales(torch.zeros(3, 4), 0, "float8") > 0).all())
    assert bool(scales.isfinite().all())


@pytest.mark.parametrize("form", ["symmetric", "affine", "float8"])
@pytest.mark.parametrize("size", [1e-8, 3e-6, 1e-3])
def test_small_weights_have_scales_that_their_files_hold(size: float, form: Form) -> None:
    weight = size * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    scales = weight_scales(weight, 0, form)
    wanted = weight.abs().amax(1) / largest_number(form)
    assert bool((scales >= 0.999999 * wanted).all())
    if form == "affine":
        torch.testing.assert_close(scales, wanted)
        rounded = rounded_weight(weight, 0, form)
        assert float((rounded - weight).norm() / weight.norm()) < 0.02, "files for CPUs have scales in float32"
    elif bool((wanted < 2.0**-14).all()):
        assert torch.equal(scales.half().float(), scales), "what a file in float16 makes of it is the scale itself"


def test_activations_on_cpus_have_scales_of_any_size() -> None:
    values = Range(-1e-7, 3e-7)
    assert grid_of(values, "affine").scale == pytest.approx(4e-7 / 255)
    assert not is_too_narrow(values, "affine")
    assert grid_of(values, "symmetric").scale == 2.0**-24
    assert is_too_narrow(values, "symmetric")
