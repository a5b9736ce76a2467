"""Quantized programs: what they compute, what is left without their quantizers, files of them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunec.passes.graphs import calls, copied_graph, operator_name
from prunec.passes.own_operators import FLOAT8_PER_CHANNEL
from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form, Grid, Range, grid_of, rounded_weight, weight_scales
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import fold_clips, quantize, quantizers, without_quantizers
from prunec.passes.sparsify import Sparsify
from tests.architectures.resnet import cifar_resnet
from tests.fuzz.checking import random_program
from tests.passes.checks import images
from tests.passes.quantization.observed import folded, on_grids

FORMS: tuple[Form, ...] = ("symmetric", "affine", "float8")


def mlp() -> Program:
    return folded(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), 4, 5)


def rounded(x: Tensor, grid: Grid) -> Tensor:
    if grid.is_float8:
        return (x / grid.scale).clamp(-448, 448).to(torch.float8_e4m3fn).double() * grid.scale
    whole = (x.double() / grid.scale).round() + grid.zero_point
    return (whole.clamp(grid.least, grid.most) - grid.zero_point) * grid.scale


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_outputs_are_those_of_the_formula(form: Form) -> None:
    program = mlp()
    placement = place(program)
    first, second = (site.family for site in placement.sites)
    ranges = {first: Range(-1.5, 2.0), second: Range(0.0, 3.0)}
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    tensors = {name: tensor.double() for name, tensor in program.tensors().items()}

    def weight(name: str) -> Tensor:
        if form == "float8":
            scales = weight_scales(program.tensors()[name], 0, form).double()[:, None]
            return (tensors[name] / scales).to(torch.float8_e4m3fn).double() * scales
        scales = tensors[name].abs().amax(1, keepdim=True).float().double() / 127
        return (tensors[name] / scales).round() * scales

    hidden = (rounded(x, grid_of(ranges[first], form)) @ weight("0.weight").t() + tensors["0.bias"]).relu()
    expected = rounded(hidden, grid_of(ranges[second], form)) @ weight("2.weight").t() + tensors["2.bias"]
    actual = quantize(program, placement, ranges, form)(x)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_random_networks_are_the_same_without_their_quantizers(seed: int, form: Form) -> None:
    program = random_program(seed).single()
    quantized = on_grids(program, form)
    assert quantized.macs() == program.macs()
    assert quantized.layers() == program.layers()
    assert quantized.attention_macs() == program.attention_macs()
    back = without_quantizers(quantized)
    assert str(back.graph) == str(program.graph)
    tensors = back.tensors()
    assert tensors.keys() == program.tensors().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in program.tensors().items())
    x = images(program)
    for actual, expected in zip(*(torch.utils._pytree.tree_leaves(p(*x)) for p in (back, program)), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_archives_hold_quantized_programs(form: Form, tmp_path: Path) -> None:
    program = Sparsify().run(folded(cifar_resnet(8), 2, 3, 16, 16)).program
    quantized = on_grids(program, form)
    quantized.save(tmp_path / "q.pt2")
    loaded = Program.load(tmp_path / "q.pt2")
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(loaded(x), quantized(x))
    assert [q.grid for q in quantizers(loaded.graph)] == [q.grid for q in quantizers(quantized.graph)]
    assert loaded.masks.keys() == program.masks.keys() != set()
    assert (loaded.macs(), loaded.layers()) == (program.macs(), program.layers())
    assert torch.equal(without_quantizers(loaded)(x), program(x))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_pass_straight_through_within_the_range_alone(form: Form) -> None:
    program = mlp()
    placement = place(program)
    ranges = {site.family: Range(-1.0, 1.0) for site in placement.sites}
    x = torch.tensor([[0.3, -0.7, 5.0, -5.0, 0.0]], requires_grad=True)
    quantize(program, placement, ranges, form)(x).sum().backward()
    assert x.grad is not None
    assert [bool(value) for value in x.grad[0]] == [True, True, False, False, True]


@torch.no_grad()
def test_masked_weights_stay_zero_in_floating_point_of_8_bits() -> None:
    program = Sparsify().run(folded(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)), 2, 16)).program
    quantized = on_grids(program, "float8")
    assert program.masks
    for name, mask in program.masks.items():
        weight = quantized.tensors()[name]
        values = FLOAT8_PER_CHANNEL(weight, quantized.tensors()[f"{name}_scale"], 0)
        assert not values[~mask].any()
        assert torch.equal(values, rounded_weight(weight, 0, "float8"))


def test_masked_weights_stay_zero() -> None:
    program = Sparsify().run(folded(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)), 2, 16)).program
    quantized = on_grids(program)
    values = {
        str(q.source.target): torch.fake_quantize_per_channel_affine(
            program.tensors()[str(q.source.target)], *(quantized.tensors()[f"{q.source.target}{s}"]
            for s in ("_scale", "_zero_point")), 0, -128, 127
        )
        for q in quantizers(quantized.graph) if q.source.op == "get_attr"
    }  # fmt: skip
    assert values.keys() == program.masks.keys()
    for name, mask in program.masks.items():
        assert not values[name][~mask].any()


@pytest.mark.parametrize(
    ("activation", "form", "left"),
    [
        (nn.ReLU(), "affine", []),
        (nn.ReLU(), "symmetric", ["relu"]),
        (nn.ReLU6(), "affine", []),
        (nn.ReLU6(), "symmetric", ["relu"]),
        (nn.ReLU(), "float8", ["relu"]),
        (nn.ReLU6(), "float8", ["relu"]),
        (nn.Hardtanh(-0.5, 0.5), "float8", []),
        (nn.Hardtanh(-0.5, 0.5), "symmetric", ["hardtanh"]),
        (nn.Sigmoid(), "affine", ["sigmoid"]),
    ],
)
@torch.no_grad()
def test_clips_that_the_grid_does_go(activation: nn.Module, form: Form, left: list[str]) -> None:
    """A signed grid of whole numbers reaches one step below a symmetric range, so that of Hardtanh must stay."""
    program = folded(nn.Sequential(nn.Linear(5, 7), activation, nn.Linear(7, 3)), 64, 5)
    placement = place(program)
    low, high = (-0.5, 0.5) if type(activation) is nn.Hardtanh else (0.0, 6.0)
    ranges = {site.family: Range(low, high) for site in placement.sites}
    quantized = quantize(program, placement, ranges, form)
    graph = copied_graph(quantized.graph)
    fold_clips(graph, quantized.tensors())
    assert [operator_name(node.target) for node in calls(graph, "relu", "sigmoid", "hardtanh")] == left
    x = 10 * torch.randn(200, 5)
    assert torch.equal(quantized.with_tensors(quantized.tensors(), graph)(x), quantized(x))
