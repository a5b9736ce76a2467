"""Inputs and outputs of ONNX files: names, types, sizes that vary, structure; and random inputs of any file."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim

from prunec.passes import capture
from prunec.passes.errors import InputError
from prunec.passes.network_inputs import NetworkInput, VaryingSize
from prunec.passes.program import Program
from prunec.runtime.engines import OnnxRuntimeSession
from prunec.runtime.evaluate import predictor
from prunec.runtime.numerics import onnx_vs_torch, random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_inputs import random_onnx_inputs
from prunec.runtime.onnx_precision import to_fp16
from prunec.runtime.onnx_reading import read_onnx
from prunec.runtime.onnx_signature import Signature, file_signature


class Net(nn.Module):
    """Its arguments are called as outputs and nodes are, and so are its outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.a, self.b = nn.Embedding(30, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, output: Tensor, input: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        hidden = self.a(self.table(output)) + input
        if mask is not None:
            hidden = hidden * mask[..., None]
        return {"linear": self.b(hidden.mean(1)), "input": (hidden, output.shape[0]), "stride": 8}


def text(dynamic: bool = False) -> Program:
    ids, noise, mask = torch.randint(0, 30, (2, 6)), torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
    batch, length = Dim("batch"), Dim("length", min=4, max=40)
    dims = {0: batch, 1: length}
    shapes = {"output": dims, "input": dims, "mask": dims} if dynamic else None
    program = capture(Net().eval(), (ids, noise), {"mask": mask}, shapes)
    size: Any = VaryingSize("length", 6, 4, 40) if dynamic else 6
    program.describe_inputs(
        (
            NetworkInput("output", (size,), "int64", 0, 30),
            NetworkInput("input", (size, 8)),
            NetworkInput("mask", (size,), "bool", optional=True),
        )
    )
    return program


@pytest.mark.parametrize("dynamic", [False, True])
def test_names_types_and_sizes(dynamic: bool, tmp_path: Path) -> None:
    program = text(dynamic)
    export_onnx(program, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert [value.name for value in graph.input] == ["output", "input", "mask"]
    assert [value.name for value in graph.output] == ["linear", "input.0", "input.1"]
    sizes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)]
    length = "length" if dynamic else 6
    batch = ["batch", length]
    assert sizes == [batch, [*batch, 8], batch, ["batch", 3], [*batch, 8], []]
    names = [name for node in graph.node for name in node.output]
    assert len(names) == len(set(names))
    signature = file_signature(tmp_path / "m.onnx")
    assert signature == Signature.of(program)
    assert onnx_vs_torch(program, tmp_path / "m.onnx") < 1e-5
    to_fp16(tmp_path / "m.onnx", tmp_path / "half.onnx")
    assert file_signature(tmp_path / "half.onnx") == signature


def test_an_engine_gives_outputs_in_the_networks_structure(tmp_path: Path) -> None:
    program = text()
    export_onnx(program, tmp_path / "m.onnx")
    signature = file_signature(tmp_path / "m.onnx")
    predict = predictor(OnnxRuntimeSession(tmp_path / "m.onnx"), signature.inputs, signature.outputs)
    ids, noise = torch.randint(0, 30, (5, 6)), torch.randn(5, 6, 8)
    expected = program(ids, noise, mask=torch.ones(5, 6, dtype=torch.bool))
    for inputs in ((ids, noise), {"input": noise, "output": ids.int()}):
        outputs = predict(inputs)
        torch.testing.assert_close(outputs["linear"], expected["linear"], rtol=1e-4, atol=1e-5)
        assert outputs["input"][1:] == (5,)
        assert outputs["stride"] == 8


def test_an_output_that_is_an_input(tmp_path: Path) -> None:
    class Passes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.a(x)
            return x, y, y

    program = capture(Passes(), (torch.randn(2, 4),))
    export_onnx(program, tmp_path / "m.onnx")
    assert onnx_vs_torch(program, tmp_path / "m.onnx") < 1e-5


def test_random_inputs_follow_the_description() -> None:
    program = text(dynamic=True)
    ids, noise, mask = random_inputs(program, 5, 0, {"length": 9})
    assert (ids.shape, noise.shape, mask.shape) == ((5, 9), (5, 9, 8), (5, 9))
    assert 0 <= ids.min() <= ids.max() < 30
    assert (ids.dtype, mask.dtype) == (np.int64, np.bool_)
    unknown = capture(nn.Sequential(nn.Embedding(20, 4)), (torch.tensor([[3, 7], [1, 2]]),))
    assert random_inputs(unknown, 3, 0)[0].tolist() == [[3, 7], [1, 2], [3, 7]]


def foreign(tmp_path: Path, bound: int = 7, dims: tuple[int | str, ...] = ("N", 5)) -> Path:
    """A file of another origin: whole numbers that reach a table through a cast, and flags that don't."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [bound, 2], [0.5] * 2 * bound)
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["rows"]),
        helper.make_node("Cast", ["flags"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["rows"], ["sum"], keepdims=0),
        helper.make_node("Add", ["numbers", "sum"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, dims) for name in ("ids", "flags")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [table])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "f.onnx")
    return tmp_path / "f.onnx"


def test_whole_numbers_of_any_file_are_valid_indices(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    ids, flags = random_onnx_inputs(read_onnx(path), str(path), 40, 0)
    assert (ids.shape, ids.dtype) == ((40, 5), np.int32)
    assert set(np.unique(ids)) == set(range(7))
    assert set(np.unique(flags)) == {0, 1}
    assert OnnxRuntimeSession(path)(ids, flags)[0].shape == (40, 5)
    fixed = foreign(tmp_path, dims=(3, 5))
    with pytest.raises(InputError, match="batch fixed to 3"):
        random_onnx_inputs(read_onnx(fixed), "f.onnx", 1, 0)
    long = foreign(tmp_path, dims=("N", "tokens"))
    with pytest.raises(InputError, match="'tokens' may vary"):
        random_onnx_inputs(read_onnx(long), "f.onnx", 1, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prunec.inputs", "[]]"),
        ("prunec.inputs", '[{"name": "x"}]'),
        ("prunec.inputs", "[" * 100_000),
        ("prunec.outputs", '{"tuple": ["tensor", "tensor"]}'),
        ("prunec.outputs", '{"fields": [["a", "tensor"]], "named_tuple": "os.system"}'),
        ("prunec.outputs", '"' + "x" * (2 << 20) + '"'),
        ("prunec.outputs", "{}"),
        ("prunec.outputs", "null"),
    ],
)
def test_hostile_metadata_are_refused(key: str, value: str, tmp_path: Path) -> None:
    path = foreign(tmp_path)
    model = onnx.load(path)
    model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    onnx.save(model, path)
    if value == "null":
        assert file_signature(path).outputs.paths == ("",)
        return
    with pytest.raises(InputError, match="can't be read as an ONNX file"):
        file_signature(path)


def test_a_size_beyond_memory_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path, dims=(1, 2**40))
    with pytest.raises(InputError, match="at most"):
        random_onnx_inputs(read_onnx(path), str(path), 1, 0)
