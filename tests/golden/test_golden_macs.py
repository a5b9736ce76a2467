"""MACs and parameters of published pruning configurations, to the digits that a recount by hand gives.

One MAC is one operation; convolutions and linear layers count. Rows that differ in their convention say so.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunec.passes.program import Program
from tests.architectures import resnet, vgg
from tests.architectures.densenet import densenet121
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.golden.published import GREG_RESNET50, VGG16_A, Counts, Reduction, captured, pruned, stage_ratios

RESNET34, RESNET50, RESNET56, RESNET110 = (3, 4, 6, 3), (3, 4, 6, 3), (9, 9, 9), (18, 18, 18)


@pytest.fixture(scope="module")
def resnet34_100() -> Program:
    return captured(resnet.resnet34(classes=100), 224)


@pytest.fixture(scope="module")
def resnet34() -> Program:
    return captured(resnet.resnet34(), 224)


@pytest.fixture(scope="module")
def resnet50() -> Program:
    return captured(resnet.resnet50(), 224)


@pytest.fixture(scope="module")
def resnet56() -> Program:
    return captured(resnet.resnet56(), 32)


@pytest.mark.parametrize(
    ("network", "size", "expected"),
    [
        (resnet.resnet18, 224, Counts(1_814_073_344, 11_689_512)),
        (resnet.resnet101, 224, Counts(7_801_405_440, 44_549_160)),
        (mobilenet_v2, 224, Counts(300_774_272, 3_504_872)),
        (densenet121, 224, Counts(2_834_161_664, 7_978_856)),
        (vgg.vgg16_bn, 224, Counts(15_470_264_320, 138_365_992)),
    ],
)
def test_dense_networks_have_their_known_counts(network: Callable[[], nn.Module], size: int, expected: Counts) -> None:
    assert Counts.of(captured(network(), size)) == expected


def test_resnet34_dense(resnet34_100: Program, resnet34: Program) -> None:
    assert Counts.of(resnet34_100).macs == 3_663_300_608
    assert Counts.of(resnet34) == Counts(3_663_761_408, 21_797_672)


@pytest.mark.parametrize(
    ("ratio", "macs_g", "speedup"),
    [
        (0.1, 3.300, 1.11),
        (0.3, 2.591, 1.41),
        (0.5, 1.900, 1.93),
        (0.7, 1.185, 3.09),
        (0.9, 0.477, 7.68),
        (0.95, 0.304, 12.06),
    ],
)
def test_resnet34_with_100_classes(resnet34_100: Program, ratio: float, macs_g: float, speedup: float) -> None:
    """The first convolution of every basic block; rounding down or to nearest misses these digits."""
    program = pruned(resnet34_100, {"layer*.conv1": ratio})
    reduction = Reduction.between(Counts.of(resnet34_100), Counts.of(program))
    assert round(program.macs() / 1e9, 3) == macs_g
    assert round(reduction.speedup, 2) == speedup


def test_resnet34_with_1000_classes_is_another_speedup(resnet34: Program) -> None:
    program = pruned(resnet34, {"layer*.conv1": 0.95})
    assert round(Reduction.between(Counts.of(resnet34), Counts.of(program)).speedup, 2) == 12.04


def test_resnet50_dense(resnet50: Program) -> None:
    assert Counts.of(resnet50) == Counts(4_089_184_256, 25_557_032)


@pytest.mark.parametrize(
    ("name", "macs_g", "parameters", "speedup"),
    [("2.31x", 1.7716, 15_934_139, 2.308), ("2.56x", 1.5948, 15_788_132, 2.564)],
)
def test_resnet50_by_stage(resnet50: Program, name: str, macs_g: float, parameters: int, speedup: float) -> None:
    """Stage ratios on the first two convolutions of every bottleneck."""
    program = pruned(resnet50, stage_ratios(GREG_RESNET50[name], RESNET50, ("conv1", "conv2")))
    counts = Counts.of(program)
    assert (round(counts.macs / 1e9, 4), counts.parameters) == (macs_g, parameters)
    assert round(Reduction.between(Counts.of(resnet50), counts).speedup, 3) == speedup
    if name == "2.31x":
        assert counts.macs == 1_771_649_680


def test_resnet50_half_of_the_inner_channels(resnet50: Program) -> None:
    """Half of the inputs of the second and third convolution of every bottleneck (Zhuang et al. 2018)."""
    program = pruned(resnet50, {"layer*.conv1": 0.5, "layer*.conv2": 0.5})
    dense, counts = Counts.of(resnet50), Counts.of(program)
    assert round(Reduction.between(dense, counts).speedup, 3) == 2.244
    assert round(dense.parameters / counts.parameters, 3) == 2.064


def test_vgg16_a() -> None:
    """Convolution 1 to 32 and 8 to 13 to 256 filters; the head is 512 -> 512 -> 10 with batch norm."""
    dense = captured(vgg.vgg16_cifar(), 32)
    program = pruned(dense, VGG16_A)
    reduction = Reduction.between(Counts.of(dense), Counts.of(program))
    widths = {layer.name: layer.shape[0] for layer in program.layers()}
    assert [widths[name] for name in VGG16_A] == [32, 256, 256, 256, 256, 256, 256]
    assert round(reduction.macs_percent, 2) == 34.19
    assert round(reduction.parameters_percent, 2) == 63.98
    assert round(dense.parameter_count() / 1e6, 3) == 14.992
    assert round(program.parameter_count() / 1e6, 3) == 5.400


@pytest.mark.parametrize(
    ("stages", "skip", "macs_percent", "parameters_percent"),
    [((0.1, 0.1, 0.1), (16, 20, 38, 54), 10.40, 9.34), ((0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54), 27.56, 13.75)],
    ids=["A", "B"],
)
def test_resnet56_of_li(
    resnet56: Program, stages: tuple[float, ...], skip: tuple[int, ...], macs_percent: float, parameters_percent: float
) -> None:
    program = pruned(resnet56, stage_ratios(stages, RESNET56, ("conv1",), skip))
    reduction = Reduction.between(Counts.of(resnet56), Counts.of(program))
    assert round(reduction.macs_percent, 2) == macs_percent
    assert round(reduction.parameters_percent, 2) == parameters_percent


def test_resnet110_a() -> None:
    dense = captured(resnet.resnet110(), 32)
    program = pruned(dense, stage_ratios((0.5, 0, 0), RESNET110, ("conv1",), skip=(36,)))
    reduction = Reduction.between(Counts.of(dense), Counts.of(program))
    assert round(reduction.macs_percent, 2) == 15.86
    assert round(reduction.parameters_percent, 2) == 2.28


@pytest.mark.parametrize(
    ("stages", "macs_percent", "without_shortcuts", "parameters_percent"),
    [((0.3, 0.3, 0.3, 0), 15.38, 15.46, 7.55), ((0.5, 0.6, 0.4, 0), 24.06, 24.19, 10.68)],
    ids=["A", "B"],
)
def test_resnet34_of_li(
    resnet34: Program,
    stages: tuple[float, ...],
    macs_percent: float,
    without_shortcuts: float,
    parameters_percent: float,
) -> None:
    """The published figures leave out the 1x1 convolutions of the shortcuts."""
    skip = (2, 8, 14, 16, 26, 28, 30, 32)
    program = pruned(resnet34, stage_ratios(stages, RESNET34, ("conv1",), skip))
    reduction = Reduction.between(Counts.of(resnet34), Counts.of(program))
    dense, counts = (Counts.of(p, without="downsample") for p in (resnet34, program))
    assert round(reduction.macs_percent, 2) == macs_percent
    assert round(reduction.parameters_percent, 2) == parameters_percent
    assert round(Reduction.between(dense, counts).macs_percent, 2) == without_shortcuts
    assert round(dense.macs / 1e9, 4) == 3.6445
    if stages[0] == 0.3:
        assert round(counts.macs / 1e9, 4) == 3.0809


@pytest.mark.parametrize(
    ("ratio", "parameters_percent", "speedup"),
    [(0.3, 31.14, 1.45), (0.5, 49.82, 1.99), (0.7, 70.58, 3.59), (0.9, 90.45, 11.58)],
)
def test_resnet56_first_convolutions(
    resnet56: Program, ratio: float, parameters_percent: float, speedup: float
) -> None:
    program = pruned(resnet56, {"layer*.conv1": ratio})
    reduction = Reduction.between(Counts.of(resnet56), Counts.of(program))
    assert round(reduction.parameters_percent, 2) == parameters_percent
    assert round(reduction.speedup, 2) == speedup


@pytest.mark.parametrize("network", ["resnet50", "resnet56"])
def test_macs_agree_with_an_independent_counter(network: str, request: pytest.FixtureRequest) -> None:
    """PyTorch's counter counts what really runs, two operations per MAC and sample."""
    dense: Program = request.getfixturevalue(network)
    program = pruned(dense, {"layer*.conv1": 0.7})
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        program(*program.example_inputs)
    assert counter.get_total_flops() == 2 * 2 * program.macs()
