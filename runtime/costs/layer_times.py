"""Times of the operations of several variants of a network, measured in turns by the engine that runs them.

Imports no torch: `time_onnxruntime` is called in the process of native code.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from prunec.passes.errors import UsageError
from prunec.passes.interruption import stoppable
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.attribution import kernel_owners, value_owners
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.engines.remote import RemoteSession
from prunec.runtime.latency import wall_clock
from prunec.runtime.onnx_events import read_kernel_times
from prunec.runtime.onnx_sparsity import check_sparsity

#: Rounds over the variants: within them each is run in a row, the first time for its caches.
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 200
_RUNS_OF_A_ROUND = 3
_PROFILED_RUNS = 50


@dataclass(frozen=True)
class Subject:
    """An engine to be measured.

    Attributes:
        engine: The engine.
        onnx_path: The model that it was built from.
        weights: Name of the weight of every operation, in the order of execution; empty where there is none.
        owners: Position of the operation of each node of the program's graph, by the node's name.
    """

    engine: EngineInfo
    onnx_path: Path
    weights: tuple[str, ...]
    owners: Mapping[str, int]

    def value_owners(self) -> dict[str, int]:
        """Position of the operation that every value and node of the model belongs to (`value_owners`)."""
        return value_owners(_graph(self.onnx_path), self.weights, self.owners)


@dataclass(frozen=True, eq=False)
class LayerTimes:
    """Milliseconds of variants, of one inference, at the level of the median over inferences.

    Attributes:
        layers: By operation, without what profiling adds, float64 (variants, operations); 0 where an operation has no
            kernels of its own.
        networks: Milliseconds of whole networks, float64 (variants,).
    """

    layers: NDArray[np.float64]
    networks: NDArray[np.float64]


def time_onnxruntime(
    subjects: Sequence[Subject], inputs: Sequence[NDArray[Any]], threads: int, seconds: float, seed: int
) -> LayerTimes:
    """Times under ONNX Runtime by its own profiler, within about ``seconds``; ``seed`` decides the order."""
    with tempfile.TemporaryDirectory() as scratch:
        plain, profiled, kernels = [], [], []
        for number, subject in enumerate(subjects):
            optimized = Path(scratch) / f"{number}.onnx"
            prefix = str(Path(scratch) / f"{number}-profile")
            path = subject.engine.path
            profiled.append(OnnxRuntimeSession(path, threads, profile_prefix=prefix, optimized_path=optimized))
            plain.append(OnnxRuntimeSession(path, threads))
            kernels.append(kernel_owners(_graph(optimized), subject.value_owners()))
            optimized.unlink()
        runs = _rounds(plain, profiled, inputs, seconds, seed)
        networks = _typical(runs)
        layers = np.zeros((len(subjects), len(subjects[0].weights)))
        counts = np.zeros_like(layers)
        for row, (session, by_name) in enumerate(zip(profiled, kernels, strict=True)):
            times = read_kernel_times(Path(session.end_profiling()))
            is_warm = np.arange(len(times.ms)) % _RUNS_OF_A_ROUND > 0
            operations = [by_name[name] for name in times.names]
            np.add.at(layers[row], operations, _typical(times.ms[is_warm]))
            np.add.at(counts[row], operations, 1)
    profiling_ms = np.median((layers.sum(axis=1) - networks) / counts.sum(axis=1))  # of one kernel
    layers = np.maximum(layers - max(profiling_ms, 0) * counts, 0)
    of_median = float(np.median(np.median(runs, axis=0) / networks))  # one factor, so that each has no noise of its own
    return LayerTimes(of_median * layers, of_median * networks)


def _typical(ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the faster half of repeated measurements, (repeats, ...).

    Other work on the machine only adds to a time; and a profiler that counts whole microseconds needs a mean.
    """
    faster = np.sort(ms, axis=0)[: max(len(ms) // 2, 1)]
    return np.asarray(faster.mean(axis=0))


def _graph(path: Path) -> onnx.GraphProto:
    return onnx.load(path, load_external_data=False).graph


def _rounds(
    plain: Sequence[OnnxRuntimeSession],
    profiled: Sequence[OnnxRuntimeSession],
    inputs: Sequence[NDArray[Any]],
    seconds: float,
    seed: int,
) -> NDArray[np.float64]:
    """Run all in turns, in an order that ``seed`` decides; milliseconds of the plain ones, (runs, sessions)."""
    generator, started = np.random.default_rng(seed), time.monotonic()
    timers = [wall_clock(partial(session, *inputs)) for session in plain]
    ms: list[list[list[float]]] = [[] for _ in plain]
    for played in stoppable(range(_MOST_ROUNDS)):
        spent = time.monotonic() - started
        if played >= _FEWEST_ROUNDS and spent + spent / played > seconds:
            break
        for index in generator.permutation(len(plain)).tolist():
            for _ in range(_RUNS_OF_A_ROUND):
                profiled[index](*inputs)
            ms[index].append([timers[index]() for _ in range(_RUNS_OF_A_ROUND)][1:])
    return np.array(ms).reshape(len(plain), -1).T


def time_engines(
    subjects: Sequence[Subject], title: str, inputs: Sequence[NDArray[Any]], threads: int, seed: int
) -> LayerTimes:
    """Times by what engines of any kind tell of the model's nodes with weights, and by their own timers.

    What an engine can't tell apart counts as time beside the layers.

    Raises:
        UsageError: The engine doesn't tell the times of its layers.
        NativeCrashError: The process of native code dies.
    """
    generator = np.random.default_rng(seed)
    owners = [each.value_owners() for each in subjects]
    nodes = [[layer.name for layer in check_sparsity(each.onnx_path)] for each in subjects]
    layers = np.zeros((_FEWEST_ROUNDS, len(subjects), len(subjects[0].weights)))
    networks = np.zeros((_FEWEST_ROUNDS, len(subjects)))
    with ExitStack() as stack:
        sessions = [stack.enter_context(RemoteSession(each.engine, title, threads)) for each in subjects]
        for played in stoppable(range(_FEWEST_ROUNDS)):
            for index in generator.permutation(len(subjects)).tolist():
                times = sessions[index].node_times_ms(inputs, nodes[index], _PROFILED_RUNS)
                if isinstance(times, Unknown):
                    raise UsageError(f"{title} can't measure a cost model: {times.reason}")
                for node, ms in times.items():
                    layers[played, index, owners[index][node]] += ms
                networks[played, index] = np.median(sessions[index].timed(inputs, _PROFILED_RUNS).ms)
    return LayerTimes(np.median(layers, axis=0), np.median(networks, axis=0))
