"""Ranges by their histograms, against brute force over the values themselves."""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn

from prunec.calibration.quantization.histograms import HALF, Histogram
from prunec.calibration.quantization.range_methods import RangeMethod, fallbacks, ranges_of, weight_fallbacks
from prunec.calibration.quantization.rounding_error import squared_error as errors_by_histogram
from prunec.passes import capture
from prunec.passes.quantization.grids import Form, Range, grid_of
from prunec.passes.quantization.method_names import RANGE_METHODS, MethodName
from prunec.passes.quantization.placement import Placement, Site, place
from prunec.passes.quantization.quantizers import quantize

FORMS: tuple[Form, ...] = ("symmetric", "affine", "float8")
#: Those of whole numbers, which tell fewer values near zero apart the wider they are.
WHOLE_FORMS: tuple[Form, ...] = ("symmetric", "affine")


def normal(seed: int = 0, count: int = 50_000) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def heavy_tailed(seed: int = 0) -> Tensor:
    """Normal values over the square root of an exponential one: tails like those of Student's t."""
    noise = torch.rand(50_000, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)
    return (normal(seed) / (-noise.clamp_min(1e-12).log()).sqrt()).float()


DISTRIBUTIONS: dict[str, Callable[[], Tensor]] = {
    "normal": normal,
    "normal, far from 0": lambda: 5 + normal() / 10,
    "relu": lambda: normal().relu(),
    "relu6": lambda: (4 * normal()).clamp(0, 6),
    "silu": lambda: torch.nn.functional.silu(4 * normal()),
    "never positive": lambda: -heavy_tailed().abs(),
    "heavy-tailed": heavy_tailed,
    "heavy-tailed relu": lambda: heavy_tailed(1).relu(),
    "outliers below": lambda: torch.cat([normal(), torch.full((5,), -60.0)]),
    "two clusters": lambda: torch.cat([normal() / 10 - 1, 30 + normal(1, 500)]),
}


def squared_error(x: Tensor, values: Range, form: Form) -> float:
    """The mean squared error of rounding the values themselves."""
    return float((grid_of(values, form).rounded(x) - x).double().square().mean())


def range_by(method: RangeMethod, x: Tensor, form: Form) -> Range:
    return method.range_of(Histogram.of(x), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_comes_close_to_the_least_error_of_all_ranges(name: str, form: Form) -> None:
    x = DISTRIBUTIONS[name]()[::5]
    least, most = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    fractions = np.concatenate([np.linspace(0.02, 1, 99), [1]])
    if form != "affine":
        tried = [Range(f * least, f * most) for f in fractions]
    else:
        tried = [Range(f * least, g * most) for f, g in product(fractions[::4], fractions[::2])]
    best = min(squared_error(x, each, form) for each in tried)
    assert squared_error(x, range_by(RangeMethod("mse"), x, form), form) <= 1.02 * best


@pytest.mark.parametrize("form", WHOLE_FORMS)
def test_mse_clips_heavy_tails_and_keeps_short_ones(form: Form) -> None:
    tails, short = DISTRIBUTIONS["heavy-tailed"](), DISTRIBUTIONS["relu6"]()
    clipped = range_by(RangeMethod("mse"), tails, form)
    assert clipped.high < 0.95 * tails.max() or clipped.low > 0.95 * tails.min()
    everything = range_by(RangeMethod("min-max"), tails, form)
    assert squared_error(tails, clipped, form) < 0.9 * squared_error(tails, everything, form)
    assert range_by(RangeMethod("mse"), short, form).high == pytest.approx(6, rel=0.01)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_error_on_numbers_of_floating_point_is_that_of_the_values(name: str) -> None:
    """But for what a bin is wide: values within one count as lying evenly in it."""
    x = DISTRIBUTIONS[name]()
    histogram = Histogram.of(x)
    error = errors_by_histogram(histogram, "float8")
    for bound in (0.3, 0.7, 1.0):
        values = Range(float(bound * x.abs().max()) * -1.0, float(bound * x.abs().max()))
        found = error(values.low, values.high) * histogram.width**2 / histogram.count
        assert found == pytest.approx(squared_error(x, values, "float8"), rel=0.05, abs=histogram.width**2)


def divergence(magnitudes: np.ndarray, bins: int, levels: int) -> float:
    """As NVIDIA's pytorch-quantization computes it, bin by bin; infinite where the window's last bin has no values."""
    counts = magnitudes.astype(float)
    counts[0] = counts[1]
    reference, level_of = counts[:bins].copy(), [bin_ * levels // bins for bin_ in range(bins)]
    candidate = np.zeros(bins)
    for level in range(levels):
        members = [bin_ for bin_ in range(bins) if level_of[bin_] == level and counts[bin_] > 0]
        if members:
            candidate[members] = sum(counts[member] for member in members) / len(members)
    reference[-1] += counts[bins:].sum()
    p, q = reference / reference.sum(), candidate / candidate.sum()
    if ((p > 0) & (q == 0)).any():
        return math.inf
    return float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


@pytest.mark.parametrize("name", ["normal", "relu", "heavy-tailed", "heavy-tailed relu", "silu"])
def test_entropy_finds_the_threshold_of_least_divergence(name: str) -> None:
    histogram = Histogram.of(DISTRIBUTIONS[name]())
    magnitudes = histogram.counts[HALF:] + histogram.counts[:HALF][::-1]
    last = int(np.flatnonzero(magnitudes)[-1]) + 1
    values = RangeMethod("entropy").range_of(histogram, "symmetric")
    found = min(round(max(-values.low, values.high) / histogram.width + 0.49), last)
    least = min(divergence(magnitudes, bins, 128) for bins in np.linspace(128, last, 24).astype(int))
    assert divergence(magnitudes, found, 128) <= least + 1e-9


@pytest.mark.parametrize("form", WHOLE_FORMS)
@pytest.mark.parametrize("name", ["heavy-tailed", "heavy-tailed relu", "never positive"])
def test_entropy_clips_heavy_tails(name: str, form: Form) -> None:
    x = DISTRIBUTIONS[name]()
    values = range_by(RangeMethod("entropy"), x, form)
    assert max(-values.low, values.high) < 0.5 * float(x.abs().max())
    held = float(((x >= values.low) & (x <= values.high)).float().mean())
    assert held > 0.99


@pytest.mark.parametrize("form", FORMS)
def test_entropy_keeps_a_tensor_that_has_no_tails(form: Form) -> None:
    values = range_by(RangeMethod("entropy"), DISTRIBUTIONS["relu6"](), form)
    assert (values.low, values.high) == (0, 6)


@given(
    arrays(np.float32, st.integers(1, 200), elements=st.floats(-100, 100, width=32)),
    st.floats(50.01, 100),
    st.sampled_from(FORMS),
)
def test_a_percentile_holds_its_share_of_the_values(x: np.ndarray, percentile: float, form: Form) -> None:
    histogram = Histogram.of(torch.from_numpy(x))
    values = RangeMethod("percentile", percentile).range_of(histogram, form)
    bound = max(-values.low, values.high)
    low, high = (-bound, bound) if form != "affine" else (values.low, values.high)
    assert ((x >= low) & (x <= high)).sum() >= percentile / 100 * x.size - 1e-6
    assert min(x.min(), 0) <= values.low <= values.high <= max(x.max(), 0) or x.min() == x.max()


def test_percentiles_are_those_of_numpy() -> None:
    x = heavy_tailed()
    width = Histogram.of(x).width
    values = range_by(RangeMethod("percentile", 99), x, "symmetric")
    assert values.high == pytest.approx(np.quantile(x.abs(), 0.99), abs=2 * width)
    assert values.low == -values.high
    values = range_by(RangeMethod("percentile", 99), x, "affine")
    assert (values.low, values.high) == pytest.approx(tuple(np.quantile(x, [0.005, 0.995])), abs=2 * width)
    for form in FORMS:
        values = range_by(RangeMethod("percentile", 99), x.relu(), form)
        assert (values.low, values.high) == pytest.approx((0, np.quantile(x.relu(), 0.99)), abs=2 * width)
        values = range_by(RangeMethod("percentile", 99), -x.relu(), form)
        assert (values.low, values.high) == pytest.approx((-np.quantile(x.relu(), 0.99), 0), abs=2 * width)


@pytest.mark.parametrize("form", FORMS)
def test_all_of_the_percentiles_are_min_max(form: Form) -> None:
    x = heavy_tailed()
    values = range_by(RangeMethod("percentile", 100), x, "affine")
    assert values == range_by(RangeMethod("min-max"), x, form) == Range(float(x.min()), float(x.max()))


@pytest.mark.parametrize("percentile", [0.9999, 50, 100.1, math.nan])
def test_a_share_that_is_no_percentile_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        RangeMethod("percentile", percentile)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", RANGE_METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -0.25, 1e-30, 1e30])
def test_a_constant_is_held_by_a_grid_of_its_own(value: float, method: MethodName, form: Form) -> None:
    grid = grid_of(range_by(RangeMethod(method), torch.full((7,), value), form), form)
    assert grid.scale > 0
    step = min(grid.scale, abs(value) / 100) if abs(value) != 1e-30 else grid.scale
    rounded = float(grid.rounded(torch.tensor(value, dtype=torch.float64).float()))
    assert abs(rounded - value) <= step


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", RANGE_METHODS)
@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_every_finite_tensor_has_a_range(method: MethodName, form: Form, x: np.ndarray) -> None:
    values = range_by(RangeMethod(method), torch.from_numpy(x), form)
    assert min(x.min(), 0) <= values.low <= values.high <= max(x.max(), 0) or values == Range(x.min(), x.max())
    assert values.low < values.high or x.min() == x.max()
    assert grid_of(values, form).scale > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", [method for method in RANGE_METHODS if method != "min-max"])
def test_a_few_values_far_out_of_a_grid_of_integers(method: MethodName, form: Form) -> None:
    """Bins without values between those with many."""
    x = torch.randint(-3, 4, (10_000,), generator=torch.Generator().manual_seed(0)).float()
    values = range_by(RangeMethod(method), torch.cat([x, torch.tensor([50.0])]), form)
    assert values.low <= -3 + 0.1 and values.high >= 2.9


def placed(*sites: tuple[str, str]) -> Placement:
    return Placement(tuple(Site(source, ("reader",), family) for source, family in sites), (), ())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", RANGE_METHODS)
def test_a_family_has_the_range_of_all_its_values(method: MethodName, form: Form) -> None:
    a, b, c = normal(1), 3 * normal(2, 1000).relu(), normal(3)
    histograms = {name: Histogram.of(x) for name, x in (("a", a), ("b", b), ("c", c))}
    placement = placed(("a", "cat"), ("b", "cat"), ("c", "c"))
    found = ranges_of(placement, histograms, RangeMethod(method), form)
    together = range_by(RangeMethod(method), torch.cat([a, b]), form)
    assert found == {"cat": together, "c": range_by(RangeMethod(method), c, form)}


@pytest.mark.parametrize("form", FORMS)
def test_families_without_a_range_of_their_own_are_told(form: Form) -> None:
    tensors = {
        "usual": normal(), "zeros": torch.zeros(3), "same": torch.full((3,), -2.5), "none": torch.empty(0),
        "tiny": 1e-9 * normal(), "small": 1e-4 * normal(), "part": torch.zeros(5),
    }  # fmt: skip
    histograms = {name: Histogram.of(x) for name, x in tensors.items()}
    placement = placed(*((name, "usual" if name == "part" else name) for name in tensors))
    found = fallbacks(placement, histograms, form)
    assert set(found) == {"zeros", "same", "none"} | ({"tiny"} if form != "affine" else set())
    assert (found["zeros"], found["same"], found["none"]) == ("the constant 0", "the constant -2.5", "no values")
    assert form == "affine" or "float16" in found["tiny"]
    for method in RANGE_METHODS:
        for values in ranges_of(placement, histograms, RangeMethod(method), form).values():
            assert grid_of(values, form).scale > 0


@pytest.mark.parametrize("form", FORMS)
def test_weights_without_a_scale_in_float16_are_told(form: Form) -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        network[0].weight[:2] *= 1e-9
    program = capture(network.eval(), (torch.randn(2, 2, 4, 4),)).inference()
    placement = place(program)
    ranges = {site.family: Range(-1, 1) for site in placement.sites}
    found = weight_fallbacks(placement, quantize(program, placement, ranges, form), form)
    expected = {"0.weight": "weights so small that float16 has next to no scales for 2 of 4 grids"}
    assert found == ({} if form == "affine" else expected)
