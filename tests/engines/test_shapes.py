"""Sizes of dynamic dimensions: how they are written, and how they meet a model's inputs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, save

from prunec.passes.errors import UsageError
from prunec.runtime.engines.shapes import SizeRange, dynamic_dimensions, shape_ranges

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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An image of dynamic batch and height, a mask of dynamic batch, and a scale of fixed shape."""
    shapes = {"image": ["batch", 3, "height", 224], "mask": ["batch", 1], "scale": [1]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    node = helper.make_node("Identity", ["image"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["image"])
    save(helper.make_model(helper.make_graph([node], "g", inputs, [output])), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_every_input_with_a_dynamic_dimension_gets_three_shapes(model: Path) -> None:
    assert dynamic_dimensions(model) == ["batch", "height"]
    assert shape_ranges(model, {"height": SizeRange(32, 224, 512)}) == {
        "image": ((1, 3, 32, 224), (8, 3, 224, 224), (32, 3, 512, 224)),
        "mask": ((1, 1), (8, 1), (32, 1)),
    }


def test_a_dimension_without_a_range_is_asked_for(model: Path) -> None:
    with pytest.raises(UsageError, match="--dims height=SMALLEST:TUNED:LARGEST"):
        shape_ranges(model, {})


def test_a_range_for_no_dimension_is_an_error(model: Path) -> None:
    with pytest.raises(UsageError, match="no dynamic dimension of this name"):
        shape_ranges(model, {"heigth": SizeRange(1, 2, 3), "height": SizeRange(1, 2, 3)})
