"""Which kernels of ONNX Runtime run a layer: what the laws take for granted, against the graphs that it optimizes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from prunec.passes.costs.counting import work_of
from prunec.passes.costs.fitted import FEATURES, REGIMES, Blocks, features, regimes
from prunec.passes.costs.workload import Work
from prunec.passes.frontend import capture
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.onnx_export import export_onnx
from tests.passes.checks import Net

BLOCKS = Blocks(16, 4, 4)


def optimized(network: nn.Module, channels: int, folder: Path) -> tuple[Work, list[str]]:
    """A network's work, and the operators that ONNX Runtime makes of it."""
    program = capture(network.eval(), (torch.randn(2, channels, 12, 12),))
    export_onnx(program, folder / "model.onnx")
    OnnxRuntimeSession(folder / "model.onnx", optimized_path=folder / "optimized.onnx")
    graph = onnx.load(folder / "optimized.onnx").graph
    blocked = {opset.domain for opset in onnx.load(folder / "optimized.onnx").opset_import}
    assert "com.microsoft.nchwc" in blocked
    return work_of(program), [f"{node.domain}/{node.op_type}" for node in graph.node]


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "regime"),
    [
        (32, 48, 1, "blocked"), (20, 48, 1, "blocked"), (32, 17, 1, "blocked"), (18, 48, 1, "plain"),
        (3, 48, 1, "narrow"), (12, 48, 1, "narrow"), (15, 16, 1, "narrow"),
        (32, 32, 32, "blocked"), (20, 20, 20, "blocked"), (18, 18, 18, "plain"), (11, 11, 11, "plain"),
        (64, 64, 8, "plain"), (64, 64, 4, "blocked"), (64, 96, 4, "plain"), (32, 64, 2, "blocked"),
    ],
)  # fmt: skip
def test_regimes_are_those_of_onnx_runtime(
    channels: int, filters: int, groups: int, regime: str, tmp_path: Path
) -> None:
    """The layer stands behind one that is blocked anyway."""
    first, tested = nn.Conv2d(16, channels, 3), nn.Conv2d(channels, filters, 3, groups=groups)
    work, operators = optimized(nn.Sequential(first, nn.ReLU(), tested), 16, tmp_path)
    assert REGIMES[regimes(work, BLOCKS)[2]] == regime
    is_blocked = sum(each == "com.microsoft.nchwc/Conv" for each in operators) == 2
    assert is_blocked == (regime != "plain"), operators


def joined(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    return net.c((net.b(x) + x).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("width", "inputs", "leaves"), [(32, 16, False), (20, 16, False), (18, 16, False), (32, 18, True)]
)
def test_sums_leave_the_blocks_where_an_operand_does(width: int, inputs: int, leaves: bool, tmp_path: Path) -> None:
    """An operand isn't blocked where it comes of a plain convolution, of 18 inputs."""
    net = Net(
        joined, a=nn.Conv2d(inputs, width, 1), b=nn.Sequential(nn.Conv2d(width, 16, 1), nn.Conv2d(16, width, 1)),
        c=nn.Conv2d(width, 16, 1),
    )  # fmt: skip
    net = net if inputs == 16 else nn.Sequential(nn.Conv2d(16, inputs, 1), net)  # type: ignore[assignment]
    work, operators = optimized(net, 16, tmp_path)
    (row,) = np.flatnonzero(work.joined)
    assert (features(work, BLOCKS)[row, FEATURES.index("reordered")] > 0) == leaves
    assert ("/Add" in operators) == leaves, operators


@pytest.mark.parametrize(("width", "leaves"), [(32, False), (20, True), (18, True)])
def test_pooling_leaves_the_blocks_where_they_are_not_whole(width: int, leaves: bool, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(16, width, 3), nn.MaxPool2d(2), nn.Conv2d(width, 16, 1))
    work, operators = optimized(net, 16, tmp_path)
    assert (features(work, BLOCKS)[1, FEATURES.index("reordered")] > 0) == leaves
    assert ("com.microsoft.nchwc/MaxPool" not in operators) == leaves, operators


def test_other_convolutions_have_no_blocks() -> None:
    for network, sample in (
        (nn.Conv1d(16, 32, 3), torch.randn(2, 16, 12)),
        (nn.ConvTranspose2d(16, 32, 3), torch.randn(2, 16, 12, 12)),
    ):
        work = work_of(capture(network.eval(), (sample,)))
        assert REGIMES[regimes(work, BLOCKS)[1]] == "plain"
