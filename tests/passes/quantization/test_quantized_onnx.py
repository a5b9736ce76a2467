"""Quantized programs as ONNX files: the same function, and kernels of whole numbers for it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import quantizers
from prunec.passes.sparsify import Sparsify
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_sparsity import check_sparsity
from tests.architectures.densenet import DenseNet
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.resnet import cifar_resnet
from tests.architectures.vgg import vgg16_cifar
from tests.architectures.vit import ViT
from tests.fuzz.checking import random_program
from tests.passes.quantization.observed import folded, on_grids

FORMS: tuple[Form, ...] = ("symmetric", "affine", "float8")
NETWORKS: dict[str, Any] = {
    "resnet": lambda: cifar_resnet(8), "densenet": lambda: DenseNet((2, 2), growth=4),
    "vgg": vgg16_cifar, "vit": lambda: ViT(32, 8, 24, 2, 3, 5),
}  # fmt: skip


def session(path: Path, level: str, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def difference(program: Program, path: Path) -> float:
    """Export and compare ONNX Runtime, its own rewritings off, with torch, from grid to grid."""
    export_onnx(program, path)
    return onnx_vs_torch(program, path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(6))
def test_random_networks(seed: int, form: Form, tmp_path: Path) -> None:
    program = random_program(seed).single()
    assert difference(on_grids(program, form), tmp_path / "q.onnx") < 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_architectures(name: str, form: Form, tmp_path: Path) -> None:
    program = folded(NETWORKS[name](), 2, 3, 32, 32)
    assert difference(on_grids(program, form), tmp_path / "q.onnx") < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_stored_as_numbers_of_their_grids_under_their_names(form: Form, tmp_path: Path) -> None:
    dtype, limit = ("float8_e4m3fn", 448) if form == "float8" else ("int8", 127)
    program = Sparsify().run(folded(cifar_resnet(8), 2, 3, 16, 16)).program
    quantized = on_grids(program, form)
    export_onnx(quantized, tmp_path / "q.onnx")
    model = onnx.load(tmp_path / "q.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for layer in program.layers():
        assert stored[layer.weight].dtype.name == dtype
        assert np.abs(stored[layer.weight].astype(float)).max() == limit
    zero_points = {stored[node.input[2]].dtype for node in model.graph.node if node.op_type == "QuantizeLinear"
                   if node.input[2] in stored}  # fmt: skip
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["QuantizeLinear"] == sum(q.source.op != "get_attr" for q in quantizers(quantized.graph))
    assert {each.name for each in zero_points} <= {{"affine": "uint8"}.get(form, dtype)}
    assert program.masks
    states = {layer.weight: layer for layer in check_sparsity(tmp_path / "q.onnx")}
    assert all((states[name].valid, states[name].dtype) == (True, dtype) for name in program.masks)


def test_cpus_run_the_affine_form_in_kernels_of_whole_numbers(tmp_path: Path) -> None:
    """Every convolution becomes a QLinearConv, and no float convolution is left."""
    program = folded(mobilenet_v2(), 2, 3, 32, 32)
    convolutions = sum(row.operator == "conv2d" for row in place(program).layers)
    assert difference(on_grids(program, "affine"), tmp_path / "q.onnx") < 1e-5
    session(tmp_path / "q.onnx", "ORT_ENABLE_ALL", tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == convolutions
    assert not kinds["Conv"] + kinds["FusedConv"] + kinds["Clip"] + kinds["Relu"]
    assert kinds["QLinearAdd"] == 10


def test_a_dynamic_batch_stays_dynamic(tmp_path: Path) -> None:
    program = on_grids(folded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), 2, 3, 8, 8))
    export_onnx(program, tmp_path / "q.onnx")
    (output,) = session(tmp_path / "q.onnx", "ORT_DISABLE_ALL").run(None, {"input": np.zeros((5, 3, 8, 8), np.float32)})
    assert output.shape == (5, 2, 6, 6)
