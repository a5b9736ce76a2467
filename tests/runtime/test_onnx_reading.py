"""What is refused of ONNX files before a library loads them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunec.passes.errors import InputError
from prunec.runtime.onnx_reading import read_onnx

Change = Callable[[TensorProto, Path], None]


def saved(folder: Path, change: Change = lambda *_: None, where: str = "initializer") -> Path:
    """A model with one weight, which a test changes, in the graph, a Constant node or a graph within."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    change(weight, folder)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if where != "initializer":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    output = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "g", inputs, output, [weight] if where == "initializer" else [])
    if where == "branch":
        branch = helper.make_graph(nodes, "b", [], output)
        choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        graph = helper.make_graph([choice], "g", [*inputs, condition], output)
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def external(location: str, **entries: int) -> Change:
    def change(tensor: TensorProto, folder: Path) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=str(value))

    return change


def of_shape(*sizes: int) -> Change:
    def change(tensor: TensorProto, folder: Path) -> None:
        tensor.ClearField("dims")
        tensor.dims.extend(sizes)

    return change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with values beside and outside of it, links and a pipe."""
    (tmp_path / "secret").write_bytes(bytes(100))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "beside").write_bytes(bytes(24))
    (folder / "link").symlink_to("../secret")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    return folder


def test_values_in_the_file_and_beside_it(folder: Path) -> None:
    assert len(read_onnx(saved(folder)).graph.initializer) == 1
    read_onnx(saved(folder, external("beside")))
    read_onnx(saved(folder, external("beside", offset=0, length=24)))


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize(
    "change",
    [
        *(external(place) for place in ("../secret", "/etc/passwd", "link", "up/secret", "pipe", "missing", ".", "")),
        *(external("beside", offset=start, length=size) for start, size in ((0, 25), (8, 24), (-8, 24), (0, 4))),
        *(of_shape(10**6, 10**6), of_shape(-1), of_shape(2, 4)),
    ],
)
def test_others_are_refused(folder: Path, where: str, change: Change) -> None:
    with pytest.raises(InputError, match=r"m\.onnx"):
        read_onnx(saved(folder, change, where))


def test_a_sparse_tensor_of_absurd_size_is_refused(folder: Path) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [10**6, 10**6])
    path = saved(folder)
    model = onnx.load(path)
    model.graph.sparse_initializer.append(sparse)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="sparse tensor"):
        read_onnx(path)


def test_pipes_and_other_files_are_refused(folder: Path) -> None:
    for path in (folder / "pipe", folder / "beside", folder / "missing"):
        with pytest.raises(InputError):
            read_onnx(path)
