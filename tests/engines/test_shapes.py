"""Sizes of dynamic dimensions: how they are written, and how they meet a model's inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.passes.errors import UsageError
from prunec.passes.size_range import SizeRange
from prunec.runtime.engines.shapes import dynamic_dimensions, profile_shapes, used_ranges

sizes = st.lists(st.integers(1, 10_000), min_size=3, max_size=3).map(lambda found: SizeRange(*sorted(found)))


@given(sizes)
def test_text_round_trips(size: SizeRange) -> None:
    assert SizeRange.parse(str(size)) == size


def test_one_size_is_a_range_of_itself() -> None:
    assert SizeRange.parse("8") == SizeRange(8, 8, 8)


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:3:4", "0:1:2", "4:2:8", "1:16:8", "-1:2:3", "1.5", "\u0663"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError, match="no range of sizes"):
        SizeRange.parse(text)


#: An image of dynamic batch and height, a mask of dynamic batch, and a scale of fixed shape.
INPUTS = {"image": ["batch", 3, "height", 224], "mask": ["batch", 1], "scale": [1]}


def test_every_input_with_a_dynamic_dimension_gets_three_shapes() -> None:
    assert dynamic_dimensions(INPUTS) == ["batch", "height"]
    ranges = used_ranges(INPUTS, {"height": SizeRange(32, 224, 512)})
    assert ranges == {"batch": SizeRange(1, 8, 32), "height": SizeRange(32, 224, 512)}
    assert profile_shapes(INPUTS, ranges) == {
        "image": ((1, 3, 32, 224), (8, 3, 224, 224), (32, 3, 512, 224)),
        "mask": ((1, 1), (8, 1), (32, 1)),
    }


def test_a_dimension_without_a_range_is_asked_for() -> None:
    with pytest.raises(UsageError, match="--dims height=SMALLEST:TUNED:LARGEST"):
        used_ranges(INPUTS, {})


def test_a_range_for_no_dimension_is_an_error() -> None:
    with pytest.raises(UsageError, match="no dynamic dimension of this name"):
        used_ranges(INPUTS, {"heigth": SizeRange(1, 2, 3), "height": SizeRange(1, 2, 3)})
    with pytest.raises(UsageError, match="All its dimensions are fixed"):
        used_ranges({"x": [1, 4]}, {"batch": SizeRange(1, 2, 3)})
