"""The 16-bit forms: valid for ONNX's checker and ONNX Runtime, and the values of float32 within what 16 bits hold."""

from functools import cache
from pathlib import Path

import pytest
import torch

from prunec.passes import Program, capture
from prunec.runtime.engines.protocol import TOLERANCES
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_bf16, to_fp16, to_fp32
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


@pytest.mark.parametrize("name", CASES)
def test_float16(name: str, exported, tmp_path: Path) -> None:
    program, source = exported(name)
    to_fp16(source, tmp_path / "half.onnx")
    assert onnx_vs_torch(program, tmp_path / "half.onnx") < TOLERANCES["fp16"]


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name: str, exported, tmp_path: Path) -> None:
    program, source = exported(name)
    to_bf16(source, tmp_path / "half.onnx")
    to_fp32(tmp_path / "half.onnx", tmp_path / "wide.onnx")
    assert onnx_vs_torch(program, tmp_path / "wide.onnx") < TOLERANCES["bf16"]
