"""What counts as a difference of two ONNX files: operators, weights and how they are joined, not their names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from prunec.runtime.onnx_difference import onnx_difference


def model() -> ModelProto:
    """Two weights, a chain of operators, and one with bodies that read a value of the graph around them."""
    result = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [2])
    branches = {
        f"{name}_branch": helper.make_graph([helper.make_node(kind, ["inner", "b"], ["chosen"])], name, [], [result])
        for name, kind in (("then", "Add"), ("else", "Sub"))
    }
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["inner"], "first"),
        helper.make_node("Greater", ["inner", "b"], ["larger"]),
        helper.make_node("ReduceMax", ["larger"], ["any"], keepdims=0),
        helper.make_node("If", ["any"], ["y"], **branches),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    weights = [
        numpy_helper.from_array(np.array(pair, np.float32), name) for name, pair in (("a", (1, 2)), ("b", (3, 4)))
    ]
    return helper.make_model(helper.make_graph(nodes, "net", values[:1], values[1:], weights))


def renamed(name: str) -> str:
    return {"inner": "between", "larger": "compared", "any": "some"}.get(name, name)


def rename(nodes: list[NodeProto]) -> None:
    for node in nodes:
        node.name = "other"
        node.input[:] = map(renamed, node.input)
        node.output[:] = map(renamed, node.output)
        for attribute in node.attribute:
            rename(list(attribute.g.node))


def join_otherwise(made: ModelProto) -> None:
    made.graph.node[1].input[:] = ["b", "inner"]


def compute_otherwise(made: ModelProto) -> None:
    made.graph.node[3].attribute[0].g.node[0].op_type = "Mul"


def read_otherwise(made: ModelProto) -> None:
    made.graph.node[3].attribute[1].g.node[0].input[0] = "x"


def weigh_otherwise(made: ModelProto) -> None:
    made.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([3, 5], np.float32), "b"))


def difference(folder: Path, change: Callable[[ModelProto], object]) -> str | None:
    other = model()
    change(other)
    onnx.save(model(), folder / "first.onnx")
    onnx.save(other, folder / "second.onnx")
    found = onnx_difference(folder / "first.onnx", folder / "second.onnx")
    return found and found.text


def test_names_between_operators_and_the_order_of_weights_are_no_difference(tmp_path: Path) -> None:
    assert difference(tmp_path, lambda made: rename(list(made.graph.node))) is None
    assert difference(tmp_path, lambda made: made.graph.initializer.reverse()) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (join_otherwise, "the operator Greater"),
        (compute_otherwise, "the operator If"),
        (read_otherwise, "the operator If"),
        (weigh_otherwise, "the weight b differs by 1"),
    ],
)
def test_what_is_a_difference(tmp_path: Path, change: Callable[[ModelProto], object], words: str) -> None:
    assert words in (difference(tmp_path, change) or "")
