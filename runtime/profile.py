"""Time per operator, from ONNX Runtime's own profiler."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from prunec.passes.interruption import stoppable
from prunec.runtime.costs.attribution import kernel_owners, value_owners
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.latency import wall_clock, warm_up
from prunec.runtime.onnx_events import KernelTimes, read_kernel_times

_WEIGHTED = ("Conv", "Gemm", "MatMul")
#: Events of one session's profiler: ONNX Runtime stops at a million, and a file holds half a kilobyte for each.
_MOST_EVENTS = 100_000


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the graph that an engine really runs, after its own fusions.

    Attributes:
        operator: Type of the node.
        layer: Path of the module whose weight the node reads; "" where it reads none.
        latency_ms: Median milliseconds of one inference.
        share: Share of the time of all operators, 0 to 1.
    """

    name: str
    operator: str
    layer: str
    latency_ms: float
    share: float


def profile_onnx(onnx_path: Path, inputs: list[NDArray[Any]], threads: int = 1, runs: int = 20) -> list[OperatorTime]:
    """Time of every operator in one inference on some inputs, in the order of execution.

    The medians over ``runs`` inferences, which follow a warm-up.
    """
    return operator_times(onnx_path, kernel_times(onnx_path, inputs, threads, runs))


def kernel_times(onnx_path: Path, inputs: list[NDArray[Any]], threads: int, runs: int) -> list[KernelTimes]:
    """Times of every kernel in ``runs`` inferences after a warm-up, by session of ONNX Runtime's profiler."""
    nodes = len(_graph(onnx_path).node)
    at_once = max(1, _MOST_EVENTS // max(nodes, 1) // 2)
    counts = [min(at_once, runs - done) for done in range(0, runs, at_once)]
    return [_profiled(onnx_path, inputs, threads, count) for count in stoppable(counts)]


def operator_times(onnx_path: Path, profiled: Sequence[KernelTimes]) -> list[OperatorTime]:
    """The median time of each operator over the runs of all sessions."""
    runs: dict[tuple[str, str], list[NDArray[np.float64]]] = defaultdict(list)
    for times in profiled:
        for name, operator, ms in zip(times.names, times.operators, times.ms.T, strict=True):
            runs[name, operator].append(ms)
    medians = {key: float(np.median(np.concatenate(ms))) for key, ms in runs.items()}
    total = sum(medians.values()) or 1.0
    layers = _layers(onnx_path)
    return [
        OperatorTime(name, operator, _layer_of(name, operator, layers), median, median / total)
        for (name, operator), median in medians.items()
    ]


def kernel_positions(onnx_path: Path, weights: Sequence[str]) -> dict[str, int]:
    """Position of the operation that each kernel of ONNX Runtime works for, by its name.

    Args:
        onnx_path: The model as prunec exports it: its weights have the names of the program's.
        weights: Name of the weight of every operation, in the order of execution; empty where there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        optimized = Path(scratch) / "optimized.onnx"
        OnnxRuntimeSession(onnx_path, optimized_path=optimized)
        return kernel_owners(_graph(optimized), node_positions(onnx_path, weights))


def node_positions(onnx_path: Path, weights: Sequence[str]) -> dict[str, int]:
    """Position of the operation that each node and value of a model belongs to, by its name (`value_owners`)."""
    return value_owners(_graph(onnx_path), weights)


def _profiled(onnx_path: Path, inputs: list[NDArray[Any]], threads: int, runs: int) -> KernelTimes:
    """The times of ``runs`` inferences in a session of their own, without those of its warm-up."""
    with tempfile.TemporaryDirectory() as scratch:
        engine = OnnxRuntimeSession(onnx_path, threads, profile_prefix=str(Path(scratch) / "profile"))
        warm_up(wall_clock(partial(engine, *inputs)), runs)
        for _ in stoppable(range(runs)):
            engine(*inputs)
        times = read_kernel_times(Path(engine.end_profiling()))
    return KernelTimes(times.names, times.operators, times.ms[-runs:])


def _graph(path: Path) -> onnx.GraphProto:
    return onnx.load(path, load_external_data=False).graph


def _layers(path: Path) -> dict[str, str]:
    """Path of the module whose weight an ONNX value was last multiplied with, by the value's or its node's name.

    ONNX Runtime names a fused node after the value that it yields, the activation behind a convolution, say.
    """
    graph = _graph(path)
    constants = {tensor.name for tensor in graph.initializer}
    layers: dict[str, str] = {}
    for node in graph.node:
        weight = next((name for name in node.input[1:] if name in constants and "." in name), None)
        layer = weight.rpartition(".")[0] if weight else layers.get(node.input[0] if node.input else "")
        if layer is not None:
            layers.update(dict.fromkeys(node.output, layer) | {node.name: layer})
    return layers


def _layer_of(name: str, operator: str, layers: dict[str, str]) -> str:
    """Path of the module whose weight a node reads; ONNX Runtime appends to the names of nodes that it changes."""
    if not any(kind in operator for kind in _WEIGHTED):
        return ""
    matching = [value for value in layers if name == value or name.startswith(f"{value}_")]
    return layers[max(matching, key=len)] if matching else ""
