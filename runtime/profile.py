"""Time per operator, from ONNX Runtime's own profiler."""

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession

_SUFFIX = "_kernel_time"
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the graph that ONNX Runtime really runs, after its own fusions.

    Attributes:
        operator: Type of the node.
        layer: Path of the module whose weight the node reads; "" where it reads none.
        latency_ms: Mean milliseconds of one inference.
        share: Share of the time of all operators, 0 to 1.
    """

    name: str
    operator: str
    layer: str
    latency_ms: float
    share: float


def profile_onnx(onnx_path: Path, inputs: list[NDArray[Any]], threads: int = 1, runs: int = 20) -> list[OperatorTime]:
    """Time of every operator in one inference on some inputs, in the order of execution.

    The times of ``runs`` inferences are averaged; one more comes first and isn't counted.
    """
    with tempfile.TemporaryDirectory() as scratch:
        engine = OnnxRuntimeSession(onnx_path, threads, profile_prefix=str(Path(scratch) / "profile"))
        for _ in range(runs + 1):
            engine(*inputs)
        events = json.loads(Path(engine.end_profiling()).read_text())
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            key = (event["name"].removesuffix(_SUFFIX), event["args"]["op_name"])
            durations[key].append(event["dur"] / 1000)
    layers = _layers(onnx_path)
    means = {key: sum(times[-runs:]) / runs for key, times in durations.items()}
    total = sum(means.values()) or 1.0
    return [
        OperatorTime(name, operator, _layer_of(name, operator, layers), mean, mean / total)
        for (name, operator), mean in means.items()
    ]


def _layers(path: Path) -> dict[str, str]:
    """Path of the module whose weight an ONNX value was last multiplied with, by the value's or its node's name.

    ONNX Runtime names a fused node after the value that it yields, the activation behind a convolution, say.
    """
    graph = onnx.load(path, load_external_data=False).graph
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
