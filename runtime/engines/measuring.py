"""Measuring a TensorRT engine on its device: latency against the dense network, and layer by layer.

Needs the GPU and has not been run on one; tests use a fake of the runner's interface.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines.building import EngineInfo, build_engine
from prunec.runtime.engines.inspector import EngineLayer
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.tensorrt_run import TensorRTEngine
from prunec.runtime.gpu_state import GpuState, gpu_state
from prunec.runtime.latency import LatencyComparison, compare_latency
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target

_PROFILED_RUNS = 50


@dataclass(frozen=True)
class DeviceMeasurement:
    """What was measured on the device.

    Attributes:
        latency: of the dense network's engine and this one; None without a dense network.
        dense_ms: by ONNX node, in an engine of the same network without sparse kernels.
        sparse_ms: by ONNX node, in the engine itself; empty where it may use no sparse kernels.
        sparse_kernel: by ONNX node, whether the engine's inspector names a sparse kernel.
        gpu: its state right after the timing; None where it can't be read.
        gpu_reason: why not.
    """

    latency: LatencyComparison | None
    dense_ms: dict[str, float]
    sparse_ms: dict[str, float]
    sparse_kernel: dict[str, bool]
    gpu: GpuState | None
    gpu_reason: str


def measure_on_device(
    target: Target,
    engine: EngineInfo,
    onnx_path: Path,
    inputs: Sequence[NDArray[Any]],
    *,
    dense_onnx: Path | None = None,
    options: EngineOptions | None = None,
    runs: int = 200,
    seed: int = 0,
) -> DeviceMeasurement:
    """Run an engine on its device, beside engines that are built here for comparison.

    Args:
        target: what the engine is for.
        engine: of TensorRT or TensorRT-RTX.
        onnx_path: what it was built from.
        inputs: of one inference.
        dense_onnx: the dense network, typed alike; None for no latency.
        options: that the engine was built with.
        runs: measurements of latency.
        seed: of their order.
    """
    dense_target = replace(target, pattern="dense")
    weighted = [layer.name for layer in check_sparsity(onnx_path)]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def opened(info: EngineInfo) -> TensorRTEngine:
            return stack.enter_context(TensorRTEngine(info.path, info.kind, info.builder))

        def built(path: Path, name: str) -> TensorRTEngine:
            folder = scratch / name
            folder.mkdir()
            return opened(build_engine(dense_target, path, folder, options))

        compiled, latency = opened(engine), None
        if dense_onnx is not None:
            timers = built(dense_onnx, "dense").timer(*inputs), compiled.timer(*inputs)
            latency = compare_latency(*timers, runs=runs, seed=seed)
        state, why = _state()
        unsparse = built(onnx_path, "without_sparse_kernels") if target.sparse else compiled
        layers = compiled.layers()
        return DeviceMeasurement(
            latency=latency,
            dense_ms=_node_times(unsparse, inputs, weighted),
            sparse_ms=_node_times(compiled, inputs, weighted) if target.sparse else {},
            sparse_kernel=_sparse_kernels(layers, weighted),
            gpu=state,
            gpu_reason=why,
        )


def _state() -> tuple[GpuState | None, str]:
    try:
        return gpu_state(), ""
    except MissingDependencyError as error:
        return None, str(error).replace("\n", " ")


def _node_times(engine: TensorRTEngine, inputs: Sequence[NDArray[Any]], weighted: Sequence[str]) -> dict[str, float]:
    return node_times(engine.layers(), engine.layer_times_ms(*inputs, runs=_PROFILED_RUNS), weighted)


def node_times(layers: Sequence[EngineLayer], times_ms: dict[str, float], weighted: Sequence[str]) -> dict[str, float]:
    """Milliseconds by ONNX node.

    A node computed by several layers of the engine has the sum of their times; one that shares a layer with another
    weighted node has none, since nobody can tell their times apart.
    """
    result: dict[str, float] = {}
    for node in weighted:
        mine = [layer for layer in layers if node in layer.nodes]
        shared = any(len(layer.nodes.intersection(weighted)) > 1 for layer in mine)
        if mine and not shared and all(layer.name in times_ms for layer in mine):
            result[node] = sum(times_ms[layer.name] for layer in mine)
    return result


def _sparse_kernels(layers: Sequence[EngineLayer], weighted: Sequence[str]) -> dict[str, bool]:
    told = {node: [layer.sparse_kernel for layer in layers if node in layer.nodes] for node in weighted}
    return {node: any(kinds) for node, kinds in told.items() if any(kinds) or (kinds and None not in kinds)}
