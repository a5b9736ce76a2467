"""Errors of outputs, against sums that are known, whatever the batches, the scales and the types of outputs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunec.calibration.quantization.output_error import OutputError
from prunec.passes.errors import NumericMismatchError

INF = math.inf


def error(actual: object, expected: object) -> float:
    found = OutputError()
    found.add(actual, expected)
    return found.value


def test_it_is_the_squared_difference_over_the_squared_size() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert error(x + 1.0, x) == 4 / 25
    assert error(x * 0, x * 0) == 0
    assert error(x, x * 0) == INF
    assert OutputError().value == 0


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.floats(1e-3, 1e3))
def test_batches_and_scales_of_outputs_make_no_difference(sizes: list[int], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, scores = (torch.randn(sum(sizes), 3, generator=generator) for _ in range(2))
    noise = torch.randn(sum(sizes), 3, generator=generator) / 10
    whole = error({"boxes": boxes + noise, "scores": scores}, {"boxes": boxes, "scores": scores})
    assert whole == pytest.approx(float(noise.square().sum() / boxes.square().sum()) / 2, rel=1e-4)
    found = OutputError()
    for parts in zip(*(each.split(sizes) for each in (scale * (boxes + noise), scale * boxes, scores)), strict=True):
        given_boxes, expected_boxes, same = parts
        found.add({"boxes": given_boxes, "scores": same}, {"boxes": expected_boxes, "scores": same})
    assert found.value == pytest.approx(whole, rel=1e-3)


def test_one_output_counts_as_much_as_a_far_larger_one() -> None:
    boxes, scores = torch.full((4, 4), 300.0), torch.full((4, 2), 0.5)
    assert error((boxes, -scores), (boxes, scores)) == 2
    assert error((boxes, scores), (boxes, scores)) == 0


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_whole_numbers_count_where_there_is_nothing_else(dtype: torch.dtype) -> None:
    classes = torch.tensor([0, 1, 0, 1]).to(dtype)
    other = torch.tensor([0, 1, 1, 1]).to(dtype)
    assert error(other, classes) == 1 / 4
    logits = torch.ones(2, 2)
    assert error((logits, other), (logits, classes)) == 0


@pytest.mark.parametrize(
    ("actual", "expected", "wanted"),
    [
        ([1.0, -INF], [1.0, -INF], 0.0),  # masked out in both
        ([2.0, -INF], [1.0, -INF], 1.0),
        ([1.0, 0.0], [1.0, -INF], INF),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, INF], [1.0, 1.0], INF),
        ([1.0, math.nan], [1.0, 1.0], INF),
        ([1.0, math.nan], [1.0, INF], INF),
    ],
)
def test_what_is_infinite_is_to_stay_so(actual: list[float], expected: list[float], wanted: float) -> None:
    assert error(torch.tensor(actual), torch.tensor(expected)) == wanted


def test_other_shapes_are_infinitely_far() -> None:
    assert error(torch.ones(3, 2), torch.ones(4, 2)) == INF


def test_a_network_that_gives_nan_is_refused() -> None:
    broken: Tensor = torch.tensor([1.0, math.nan])
    with pytest.raises(NumericMismatchError, match="NaN in floating point"):
        error(broken, broken)
