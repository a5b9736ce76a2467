"""Comparing an engine with torch and with the dense network's engine, and timing its layers, for any kind."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.building import build_engine
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo, EngineKind
from prunec.runtime.engines.remote import RemoteSession
from prunec.runtime.gpu_state import GpuState
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.numerics import differences_by_output
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target

_PROFILED_RUNS = 50
_COMPARED_BATCH = 2
_NO_DENSE = Unknown("needs the dense network beside it: `prunec build BUNDLE --source CHECKPOINT` on the device.")


@dataclass(frozen=True)
class MeasureSettings:
    """Settings of the measurement of engines.

    Attributes:
        runs: Latency measurements of each of the two engines.
        seed: Seed of the order of the measurements and of the bootstrap.
        threads: Number of CPU threads, for engines that run on them.
    """

    runs: int = 200
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Measurement:
    """Figures of an engine, measured where it runs.

    Attributes:
        latency: Latency of the dense network's engine and of this one.
        dense_ms: Milliseconds by ONNX node, in an engine of the same network without sparse kernels.
        sparse_ms: Milliseconds by ONNX node, in the engine itself; unknown where it may use no sparse kernels.
        sparse_kernel: Whether a sparse kernel runs an ONNX node, by node, where the loaded engine tells.
        gpu: State of the GPU right after the timing.
    """

    latency: LatencyComparison | Unknown
    dense_ms: Mapping[str, float] | Unknown
    sparse_ms: Mapping[str, float] | Unknown
    sparse_kernel: Mapping[str, bool]
    gpu: GpuState | Unknown


def not_run_here(kind: EngineKind, target: Target) -> Unknown:
    """The comparison and the measurements of an engine that this machine can't run."""
    return Unknown(kind.why_not_run(target))


def compare_with_torch(kind: EngineKind, engine: EngineInfo, program: Program, seed: int = 0) -> float:
    """Largest of the differences that `compare_outputs` gives."""
    return max(compare_outputs(kind, engine, program, seed).values())


def compare_outputs(
    kind: EngineKind, engine: EngineInfo, program: Program, seed: int = 0, drawn_for: Program | None = None
) -> dict[str, float]:
    """Relative differences of an engine, run here, from the program that it was built from, or another form of it.

    Inputs are random, those of ``drawn_for`` where that is given.

    Returns:
        max|a-b| / max|b| by output, at a batch of 2, or the nearest one that the engine takes.

    Raises:
        NumericMismatchError: Outputs are not finite, or all but zero.
        MissingDependencyError: The engine can't be loaded here, or its library dies (`NativeCrashError`).
    """
    batch = engine.ranges["batch"].nearest(_COMPARED_BATCH) if "batch" in engine.ranges else _COMPARED_BATCH
    with ENGINES.blame(kind.name), RemoteSession(engine, kind.title) as session:
        return differences_by_output(session, program, (batch,), seed, drawn_for)


def compare_models(
    kind: EngineKind,
    target: Target,
    dense_onnx: Path,
    compiled_onnx: Path,
    inputs: Sequence[NDArray[Any]],
    *,
    options: EngineOptions,
    settings: MeasureSettings,
) -> LatencyComparison:
    """Latency of two models on a target, whose engines are built here and measured in turns; arguments as of `measure`.

    Raises:
        MissingDependencyError: An engine can't be built or loaded here, or its library dies (`NativeCrashError`).
    """
    targets = {dense_onnx: replace(target, pattern="dense"), compiled_onnx: target}
    with ExitStack() as stack:
        stack.enter_context(ENGINES.blame(kind.name))
        sessions = []
        for path, own in targets.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            engine = build_engine(kind, own, path, folder, options)
            sessions.append(stack.enter_context(RemoteSession(engine, kind.title, settings.threads)))
        dense, compiled = sessions
        return compiled.compared_with(dense, inputs, settings.runs, settings.seed)


def measure(
    kind: EngineKind,
    target: Target,
    engine: EngineInfo,
    onnx_path: Path,
    inputs: Sequence[NDArray[Any]],
    *,
    dense_onnx: Path | None = None,
    options: EngineOptions | None = None,
    settings: MeasureSettings | None = None,
) -> Measurement:
    """Run an engine where it can be run, beside engines that are built here for comparison.

    Args:
        kind: The engine's kind, which builds the others too.
        target: The engine's target.
        engine: The engine.
        onnx_path: The model that the engine was built from.
        inputs: The inputs of one inference.
        dense_onnx: The dense network, typed like the model; None for no latency.
        options: The options that the engine was built with.
        settings: Number and order of the measurements.

    Raises:
        MissingDependencyError: The engine can't be loaded here, or its library dies (`NativeCrashError`).
    """
    options, settings = options or EngineOptions(), settings or MeasureSettings()
    dense_target = replace(target, pattern="dense")
    nodes = [layer.name for layer in check_sparsity(onnx_path)]
    with ExitStack() as stack:
        stack.enter_context(ENGINES.blame(kind.name))
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=None if dense_onnx is None else dense_onnx.parent))
        )

        def opened(info: EngineInfo) -> RemoteSession:
            return stack.enter_context(RemoteSession(info, kind.title, settings.threads))

        def built(path: Path, name: str) -> RemoteSession:
            folder = scratch / name
            folder.mkdir()
            return opened(build_engine(kind, dense_target, path, folder, options))

        def node_times(session: RemoteSession) -> Mapping[str, float] | Unknown:
            return session.node_times_ms(inputs, nodes, _PROFILED_RUNS)

        compiled = opened(engine)
        latency: LatencyComparison | Unknown = _NO_DENSE
        if dense_onnx is not None:
            dense = built(dense_onnx, "dense")
            latency = compiled.compared_with(dense, inputs, settings.runs, settings.seed)
        gpu = kind.gpu_state()
        dense_ms = times_ms = node_times(compiled)
        if target.sparse:
            dense_ms = node_times(built(onnx_path, "without_sparse_kernels"))
        sparse_ms = times_ms if target.sparse else Unknown(kind.why_no_sparse_kernels(target))
        return Measurement(latency, dense_ms, sparse_ms, compiled.sparse_kernels(nodes), gpu)
