"""Equalization and smoothing: the same function in other weights, whose ranges agree."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunec.calibration.quantization.channel_maxima import channel_maxima
from prunec.calibration.quantization.observing import observe
from prunec.calibration.quantization.range_methods import RangeMethod, ranges_of
from prunec.passes import capture
from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.graphs import calls, operator_name
from prunec.passes.oracle import relative_error
from prunec.passes.program import Program
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.channel_scaling import channel_groups, read_range, scaled, values_of, written_range
from prunec.passes.quantization.equalization import equalize
from prunec.passes.quantization.grids import Range
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import quantize
from prunec.passes.quantization.smoothing import smooth, smoothable
from prunec.runtime.onnx_export import export_onnx


class Inverted(nn.Module):
    """Inverted residual blocks, as MobileNetV2 has them, with an activation of choice."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(16, 5)
        self.wide, self.deep = nn.Conv2d(6, 12, 1, bias=False), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.narrow, self.last = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 16, 3, groups=2)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.narrow(self.activation(self.norm(self.deep(self.activation(self.wide(x))))))
        x = F.adaptive_avg_pool2d(F.max_pool2d(self.activation(self.last(x)), 2), 1)
        return self.head(torch.flatten(x, 1))


class Block(nn.Module):
    """A pre-norm transformer's feed-forward part, and one reader of the norm more."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.gate = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(8, 16, bias=False)
        self.down, self.end = nn.Linear(16, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        read = self.norm(x)
        return self.end(x + self.down(F.gelu(self.up(read)) * self.gate(read)))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.25, 0.5),
    "clamp": lambda x: torch.clamp(x, max=0.5),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
}
#: Operators that don't keep factors, or clip away from 0.
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "hardswish": F.hardswish,
    "clamp": lambda x: torch.clamp(x, 0.1, 0.5),
    "sigmoid": torch.sigmoid,
    "constant": lambda x: x + 1,
}


def program_of(module: nn.Module, *shape: int) -> Program:
    """A captured network whose channels have ranges far apart."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        factors = torch.exp2(torch.randint(-3, 4, parameter.shape[:1], generator=generator))
        parameter.data = torch.randn(parameter.shape, generator=generator) * factors.view(
            -1, *[1] * (parameter.ndim - 1)
        )
    return fold_batch_norms(capture(module.eval(), (torch.randn(2, *shape),))).program


def inputs_of(*shape: int) -> Tensor:
    return torch.randn(9, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def assert_equal(before: Program, after: Program, x: Tensor, tolerance: float = 1e-9) -> None:
    with torch.no_grad():
        assert relative_error(after(x), before(x)) < tolerance


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equalized_networks_compute_the_same(name: str) -> None:
    program = program_of(Inverted(ACTIVATIONS[name]), 3, 8, 8).double()
    result = equalize(program)
    assert result.stats["groups"] == 4
    assert result.stats["clips"] == (3 if name in ("relu6", "hardtanh", "clamp") else 0)
    assert result.stats["largest_factor"] > 2
    assert_equal(program, result.program, 3 * inputs_of(3, 8, 8))
    assert not torch.equal(result.program.tensors()["wide.weight"], program.tensors()["wide.weight"])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_writes_a_channel_and_what_reads_it_have_one_range(name: str) -> None:
    after = equalize(program_of(Inverted(ACTIVATIONS[name]), 3, 8, 8)).program
    groups = channel_groups(after)  # but for those that clip by channel, which have no one bound any more
    assert groups
    for group in groups:
        values = values_of(after, [group])
        torch.testing.assert_close(written_range(group, values), read_range(group, values), rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", OTHERS)
def test_channels_that_meet_other_operators_stay(name: str) -> None:
    program = program_of(Inverted(OTHERS[name]), 3, 8, 8).double()
    result = equalize(program)
    assert result.stats["groups"] == 1  # the stream, which is read by convolutions and written by them alone
    assert_equal(program, result.program, inputs_of(3, 8, 8))


def test_outputs_and_shared_weights_stay() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice, self.out = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.twice(self.twice(x).relu()).relu()
            out = self.out(x)
            return out.relu(), out

    assert channel_groups(program_of(Shared(), 4)) == ()


def test_factors_are_exact_for_any_values() -> None:
    program = program_of(Inverted(F.relu6), 3, 8, 8).double()
    generator = torch.Generator().manual_seed(5)
    groups = channel_groups(program)
    factors = {
        group: torch.rand(group.channels, generator=generator, dtype=torch.float64) * 9 + 0.1 for group in groups
    }
    after = scaled(program, factors)
    assert_equal(program, after, 3 * inputs_of(3, 8, 8))
    stem, groups_of = program.tensors()["stem.weight"], {group.writers[0].weight: group for group in groups}
    expected = stem * factors[groups_of["stem.weight"]].view(-1, 1, 1, 1)
    torch.testing.assert_close(after.tensors()["stem.weight"], expected)


def test_zero_channels_and_masked_weights_stay() -> None:
    program = program_of(Inverted(F.relu6), 3, 8, 8)
    weight = program.tensors()["wide.weight"].detach()
    mask = torch.arange(6).view(1, 6, 1, 1).expand_as(weight) % 4 < 2
    weight.mul_(mask)
    weight[3] = 0
    program.masks["wide.weight"] = mask.clone()
    after = equalize(program).program
    assert torch.equal(after.tensors()["wide.weight"] == 0, weight == 0)
    assert torch.equal(after.masks["wide.weight"], mask)
    assert all(bool(tensor.isfinite().all()) for tensor in after.tensors().values())
    assert_equal(program.double(), after.double(), inputs_of(3, 8, 8), 1e-5)


class Dead(nn.Module):
    """A layer with channels that weight decay has left a constant, behind a batch norm."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Linear(8, 4)
        with torch.no_grad():
            self.norm.weight[:4], self.norm.bias[:4] = gain, 0.3

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3)))
        return y


@pytest.mark.parametrize("gain", [1e-12, 1e-6, 1e-3, 1e-2])
def test_channels_that_are_all_but_dead_don_t_take_the_grid_from_others(gain: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4, 8, 8)
    program = fold_batch_norms(capture(Dead(gain).eval(), (x[:2],))).program
    result = equalize(program)
    assert 1 <= result.stats["largest_factor"] <= 256
    biases = [each.tensors()["first.bias"].abs().amax() for each in (program, result.program)]
    assert biases[1] <= 10 * biases[0]
    assert_equal(program.double(), result.program.double(), x.double(), 1e-5)
    errors = []
    for each in (program, result.program):
        placement = place(each)
        ranges = ranges_of(placement, observe(each, placement, [x]), RangeMethod("min-max"), "affine")
        with torch.no_grad():
            errors.append(relative_error(quantize(each, placement, ranges, "affine")(x), program(x)))
    assert errors[1] < 2 * errors[0]


def clips_of(path: Path, top: float) -> Counter[str]:
    """How often each operator is in the ONNX file of an equalized network whose grids end there."""
    program = equalize(program_of(Inverted(F.relu6), 3, 8, 8)).program
    placement = place(program)
    quantized = quantize(program, placement, {site.family: Range(-top, top) for site in placement.sites}, "symmetric")
    export_onnx(quantized, path)
    x = inputs_of(3, 8, 8).float()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        wanted = quantized(x).numpy()
    assert np.abs(given - wanted).max() <= 1e-5 * np.abs(wanted).max()
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_clips_that_a_grid_makes_needless_are_left_out_of_files(tmp_path: Path) -> None:
    wide, low = clips_of(tmp_path / "wide.onnx", 1000.0), clips_of(tmp_path / "low.onnx", 0.01)
    assert (wide["Min"], wide["Relu"]) == (3, 3)
    assert (low["Min"], low["Relu"]) == (1, 3)  # a pooling reads the last one before a grid does
    assert "Clip" not in wide + low


def test_a_clip_by_channel_stays_where_engines_fuse_it() -> None:
    program = program_of(Inverted(F.relu6), 3, 8, 8)
    placements = [place(each) for each in (program, equalize(program).program)]
    assert [len(each.sites) for each in placements] == [len(placements[0].sites)] * 2
    assert [layer.is_quantized for layer in placements[1].layers] == [
        layer.is_quantized for layer in placements[0].layers
    ]
    after = equalize(program).program
    assert {operator_name(node.target) for node in calls(after.graph)} >= {"relu", "clamp"}


def maxima_of(program: Program, x: Tensor) -> dict[str, Tensor]:
    """The largest magnitude of each channel behind norms, taken from the network's own modules."""
    norm = F.layer_norm(x, (8,), program.tensors()["norm.weight"], program.tensors()["norm.bias"])
    (group,) = smoothable(program)
    return {group.readers[0].source: norm.abs().flatten(0, 1).amax(0)}


def test_maxima_are_measured_whatever_the_batches() -> None:
    program, x = program_of(Block(), 5, 8).double(), inputs_of(5, 8)
    with torch.no_grad():
        expected = maxima_of(program, x)
    for sizes in (9, 2):
        found = channel_maxima(program, x.split(sizes))
        assert found.keys() == expected.keys()
        for name, values in found.items():
            torch.testing.assert_close(values, expected[name])
    with pytest.raises(UsageError, match="inputs"):
        channel_maxima(program, [])
    with pytest.raises(NumericMismatchError, match="finite"):
        channel_maxima(program, [x * float("nan")])


def smoothed(program: Program, share: float) -> PassResult:
    with torch.no_grad():
        return smooth(program, maxima_of(program, inputs_of(5, 8)), share)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.75, 1.0])
def test_smoothed_transformers_compute_the_same(share: float) -> None:
    program = program_of(Block(), 5, 8).double()
    result = smoothed(program, share)
    assert result.stats == {"groups": 1}
    assert_equal(program, result.program, inputs_of(5, 8))


def test_smoothing_leaves_ranges_of_powers_of_both() -> None:
    program, share = program_of(Block(), 5, 8).double(), 0.75
    maxima = next(iter(maxima_of(program, inputs_of(5, 8)).values())).detach()
    weights = torch.cat([program.tensors()[name].detach() for name in ("up.weight", "gate.weight")]).abs().amax(0)
    after = smoothed(program, share).program
    expected = maxima ** (1 - share) * weights ** (1 - share)
    torch.testing.assert_close(next(iter(maxima_of(after, inputs_of(5, 8)).values())).detach(), expected)
    found = torch.cat([after.tensors()[name].detach() for name in ("up.weight", "gate.weight")]).abs().amax(0)
    torch.testing.assert_close(found, maxima**share * weights**share)
    with pytest.raises(ValueError, match="share"):
        smoothed(program, 1.5)
