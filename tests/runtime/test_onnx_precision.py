"""The 16-bit forms: valid for ONNX's checker and ONNX Runtime, and the values of float32 within what 16 bits hold."""

from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from prunec.passes import Program, capture
from prunec.runtime.engines.protocol import TOLERANCES
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_bf16, to_fp16
from tests.runtime.constructs import CASES


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def get(name: str) -> tuple[Program, Path]:
        torch.manual_seed(0)
        make, inputs = CASES[name]
        program, path = capture(make().eval(), inputs), folder / f"{name}.onnx"
        export_onnx(program, path)
        return program, path

    return get


def widened(path: Path, destination: Path) -> Path:
    """A bfloat16 form with float32 in place of bfloat16, which ONNX Runtime can run: the rounded weights stay."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            values = numpy_helper.to_array(tensor).view(ml_dtypes.bfloat16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    model.graph.ClearField("value_info")
    onnx.save(model, destination)
    return destination


@pytest.mark.parametrize("name", CASES)
def test_float16(name: str, exported, tmp_path: Path) -> None:
    program, source = exported(name)
    to_fp16(source, tmp_path / "half.onnx")
    assert onnx_vs_torch(program, tmp_path / "half.onnx") < TOLERANCES["fp16"]


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name: str, exported, tmp_path: Path) -> None:
    program, source = exported(name)
    to_bf16(source, tmp_path / "half.onnx")
    wide = widened(tmp_path / "half.onnx", tmp_path / "wide.onnx")
    assert onnx_vs_torch(program, wide) < TOLERANCES["bf16"]
