"""Weights of linear layers in blocks of INT4: what they round to, what stays, files of them."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.passes import Program, capture
from prunec.passes.cost import layer_calls
from prunec.passes.own_operators import INT4_BLOCKS
from prunec.passes.quantization.grids import BLOCKS, Range, block_of, block_scales, grid_of
from prunec.passes.quantization.made_up_ranges import quantized_untrained
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import precision_on_grids, quantizers, without_quantizers
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.numerics import difference_from_torch, onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp16, to_fp32
from prunec.runtime.onnx_quantizers import rounding_in_steps, weights_on_grids
from prunec.runtime.target import Target
from tests.engines.device import build_engine


class Linears(nn.Module):
    """Layers of 128, 96 and 10 inputs, a convolution, and a matrix that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.wide = nn.Conv1d(8, 128, 1), nn.Linear(128, 96)
        self.middle, self.narrow = nn.Linear(96, 10, bias=False), nn.Linear(10, 64)
        self.matrix = nn.Parameter(torch.randn(64, 5))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).transpose(1, 2).relu()
        return self.narrow(self.middle(self.wide(tokens).relu())) @ self.matrix


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return capture(Linears().eval(), (torch.randn(2, 8, 6),))


@pytest.fixture(scope="module")
def quantized(program: Program) -> Program:
    return quantized_untrained(program, "int4")


@pytest.fixture(scope="module")
def path(quantized: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int4")
    export_onnx(quantized, folder / "model.onnx")
    return folder / "model.onnx"


@given(st.sampled_from(BLOCKS), st.integers(1, 3), st.sampled_from([0, 1]), st.integers(0, 2**31))
def test_weights_round_by_half_a_step_of_their_block(block: int, blocks: int, axis: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, block * blocks, generator=generator) * torch.logspace(-4, 2, 3)[:, None]
    weight[torch.rand(weight.shape, generator=generator) < 0.5] = 0
    weight = weight if axis else weight.t().contiguous()
    scales = block_scales(weight, axis, block)
    rounded = INT4_BLOCKS(weight, scales, axis)
    steps = scales.repeat_interleave(block, axis)
    assert torch.equal(scales.half().float(), scales), "float16 holds them"
    assert bool(((rounded - weight).abs() <= steps * 0.5001).all())
    assert not rounded[weight == 0].any()
    assert set((rounded / steps).round().unique().tolist()) <= set(range(-7, 8))


def test_blocks_divide_the_inputs() -> None:
    assert [block_of(inputs) for inputs in (256, 192, 96, 100, 16)] == [128, 64, 32, None, None]
    assert bool((block_scales(torch.zeros(2, 64), 1, 64) > 0).all())


def test_weights_of_linear_layers_alone_are_placed_and_others_tell_why(program: Program) -> None:
    placement = place(program, ("wide",), form="int4")
    assert placement.sites == ()
    assert {row.layer: row.reason for row in placement.layers} == {
        "patches": "no linear layer",
        "wide": "kept by name",
        "middle": "",
        "narrow": "its 10 inputs are no multiple of a block of 32",
        "matrix": "",
    }
    assert {site.block for site in placement.weights} == {32, 64}


def test_activations_have_no_grid() -> None:
    with pytest.raises(ValueError, match="no grid"):
        grid_of(Range(0, 1), "int4")


@torch.no_grad()
def test_archives_hold_it_and_without_it_the_network_is_as_before(
    program: Program, quantized: Program, tmp_path: Path
) -> None:
    quantized.save(tmp_path / "q.pt2")
    loaded, x = Program.load(tmp_path / "q.pt2"), torch.randn(3, 8, 6)
    assert torch.equal(loaded(x), quantized(x))
    assert not torch.allclose(loaded(x), program(x), rtol=1e-3)
    assert torch.equal(without_quantizers(loaded)(x), program(x))
    assert loaded.macs() == program.macs()
    precisions = {layer.name: precision_on_grids(call) for call, layer in layer_calls(loaded.graph)}
    assert precisions == {"patches": None, "wide": "int4", "middle": "int4", "narrow": None, "matrix": "int4"}
    assert {each.precision for each in quantizers(loaded.graph)} == {"int4"}


def test_gradients_pass_straight_through() -> None:
    weight = torch.randn(2, 32, requires_grad=True)
    INT4_BLOCKS(weight, block_scales(weight, 1, 32), 1).sum().backward()
    assert weight.grad is not None
    assert bool((weight.grad == 1).all())


def test_files_hold_whole_numbers_of_4_bits_in_blocks(quantized: Program, path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = ("wide.weight", "middle.weight", "matrix")
    assert {name: stored[name].dtype for name in names} == dict.fromkeys(names, np.dtype(ml_dtypes.int4))
    assert stored["narrow.weight"].dtype == np.float32
    blocks = [
        {attribute.name: attribute.i for attribute in node.attribute}["block_size"]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    ]
    assert sorted(blocks) == [32, 64, 128]
    assert not [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    steps = rounding_in_steps(model, weights_on_grids(quantized))
    assert set(steps) == set(names)
    assert max(steps.values()) <= 0.5 + 1e-3
    assert onnx_vs_torch(quantized, path) < 1e-6
    to_fp32(_half(path, tmp_path), tmp_path / "wide.onnx")
    assert 1e-6 < onnx_vs_torch(quantized, tmp_path / "wide.onnx") < 0.01


def test_onnxruntime_multiplies_what_it_is_given(quantized: Program, path: Path) -> None:
    """Its optimizations round activations to 8 bits where weights have 4."""
    with open_onnx(path) as session:
        assert difference_from_torch(session, quantized, (2,), 0) < 1e-5


def test_a_number_that_is_off_is_found(quantized: Program, path: Path) -> None:
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "middle.weight")
    values = onnx.numpy_helper.to_array(weight).astype(np.int8)
    values.flat[0] += 2 if values.flat[0] < 5 else -2
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(ml_dtypes.int4), weight.name))
    assert rounding_in_steps(model, weights_on_grids(quantized))["middle.weight"] >= 1.5


@pytest.mark.parametrize("device", ["a100", "l4"])
def test_engines_are_built(device: str, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = build_engine(Target.parse(f"{device}-int4"), _half(path, tmp_path), tmp_path, EngineOptions())
    assert engine.path.stat().st_size > 0


def _half(path: Path, folder: Path) -> Path:
    to_fp16(path, folder / "half.onnx")
    return folder / "half.onnx"
