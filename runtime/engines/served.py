"""Engines in the process of native code: what `remote` asks for there. Imports no torch.

Sessions stay here, each under a number; arrays and figures travel. Latency is measured by loops that run here, so that
no travel between the processes is timed, or comes between two measurements.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.passes.errors import UsageError
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.catalogue import load_engine
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo, EngineKind, Session
from prunec.runtime.latency import LatencyComparison, SessionTimes, Timer, compare_latency, time_session
from prunec.runtime.target import Target

_numbers = itertools.count()
_open: dict[int, tuple[EngineKind, Session]] = {}


def build(kind: str, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> Any:
    """Build an engine by the kind of this name (`EngineKind.build`)."""
    with ENGINES.blame(kind):
        return load_engine(kind).build(target, onnx_path, folder, options)


def parse(kind: str, onnx_path: Path, options: EngineOptions) -> str | Unknown:
    """Have the kind of this name read a model (`EngineKind.parse`)."""
    with ENGINES.blame(kind):
        return load_engine(kind).parse(onnx_path, options)


def open_session(kind: str, engine: EngineInfo, threads: int) -> int:
    """Load an engine by the kind of this name, and give the number of its session."""
    with ENGINES.blame(kind):
        loaded = load_engine(kind)
        session = loaded.open(engine, threads).__enter__()
    number = next(_numbers)
    _open[number] = loaded, session
    return number


def open_as_written(kind: str, engine: EngineInfo, threads: int) -> int:
    """Load an ONNX file under ONNX Runtime, which runs its graph as it stands there; the number of its session."""
    with ENGINES.blame(kind):
        session = OnnxRuntimeSession(engine.path, threads, as_written=True)
    number = next(_numbers)
    _open[number] = load_engine(kind), session
    return number


def close_session(number: int) -> None:
    """Free the engine of a session."""
    kind, session = _open.pop(number)
    with ENGINES.blame(kind.name):
        session.__exit__(None, None, None)


def run(number: int, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Run one inference of a session."""
    kind, session = _open[number]
    with ENGINES.blame(kind.name):
        return session(*inputs)


def sizes(number: int) -> tuple[list[str], list[tuple[int | str, ...]]]:
    """Names and sizes of the inputs of a session of ONNX Runtime; in place of a dynamic size stands its name."""
    session: Any = _open[number][1]
    return session.input_names, session.input_shapes


def timed(number: int, inputs: Sequence[NDArray[Any]], runs: int) -> SessionTimes:
    """Times of a session by its own timer, after a warm-up."""
    with ENGINES.blame(_open[number][0].name):
        return time_session(_timer(number, inputs), runs)


def compare(dense: int, compiled: int, inputs: Sequence[NDArray[Any]], runs: int, seed: int) -> LatencyComparison:
    """Latency of two sessions of one kind, measured in turns by their own timers."""
    with ENGINES.blame(_open[compiled][0].name):
        return compare_latency(_timer(dense, inputs), _timer(compiled, inputs), runs=runs, seed=seed)


def node_times_ms(
    number: int, inputs: Sequence[NDArray[Any]], nodes: Sequence[str], runs: int
) -> Mapping[str, float] | Unknown:
    """Milliseconds by node of a session (`Session.node_times_ms`)."""
    kind, session = _open[number]
    with ENGINES.blame(kind.name):
        return _checked_times(kind, session.node_times_ms(inputs, nodes, runs))


def sparse_kernels(number: int, nodes: Sequence[str]) -> Mapping[str, bool]:
    """Whether sparse kernels run the nodes of a session (`Session.sparse_kernels`)."""
    kind, session = _open[number]
    with ENGINES.blame(kind.name):
        return session.sparse_kernels(nodes)


def _timer(number: int, inputs: Sequence[NDArray[Any]]) -> Timer:
    kind, session = _open[number]
    return partial(_checked_ms, kind, session.timer(*inputs))


def _checked_ms(kind: EngineKind, timer: Timer) -> float:
    """The milliseconds of one inference, by a timer of the kind's.

    Raises:
        UsageError: They are no finite number above 0.
    """
    milliseconds: Any = timer()
    if not (isinstance(milliseconds, int | float | np.number) and 0 < milliseconds < math.inf):
        raise UsageError(f"A timer of the engine {kind.name!r} gave {milliseconds!r}; expected milliseconds above 0.")
    return float(milliseconds)


def _checked_times(kind: EngineKind, times_ms: Any) -> Mapping[str, float] | Unknown:
    """The milliseconds by node that a session of the kind tells.

    Raises:
        UsageError: They are neither unknown nor finite numbers of at least 0.
    """
    values = times_ms.values() if isinstance(times_ms, Mapping) else [None]
    is_table = all(isinstance(ms, int | float | np.number) and 0 <= ms < math.inf for ms in values)
    if not is_table and not isinstance(times_ms, Unknown):
        raise UsageError(f"The engine {kind.name!r} told {times_ms!r}; expected milliseconds by node.")
    return times_ms  # type: ignore[no-any-return]
