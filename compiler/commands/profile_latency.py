"""``prunec profile``: latency percentiles, and time per operator, under ONNX Runtime on this CPU."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from prunec.compiler.commands.artifacts import onnx_file, onnx_inputs
from prunec.compiler.project.project import ModelOptions, Note, Project
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.latency import Percentiles, percentiles, time_runs, wall_clock
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.profile import OperatorTime, profile_onnx

_WARMUP = 20
_PROFILED_RUNS = 20


@dataclass(frozen=True)
class ProfileSettings:
    """Threads of ONNX Runtime, batch size, number of timed runs, and seed of the random inputs."""

    threads: int = 1
    batch: int = 1
    runs: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Profile:
    """Latency of a model; `operators` are what ONNX Runtime really runs, after its fusions."""

    path: str
    settings: ProfileSettings
    latency_ms: Percentiles
    operators: tuple[OperatorTime, ...]


def profile_path(
    path: Path, settings: ProfileSettings, *, config: Path | None, model: ModelOptions, note: Note = None
) -> Profile:
    """Profile a checkpoint (exported to ONNX first), a bundle (its float32 ONNX model) or an ONNX file.

    ``note`` receives the sentence that says whose code may run.

    Raises:
        PrunecError: It can't be loaded or exported.
    """
    exported = onnx_file(path, as_deployed=False)
    if exported is not None:
        return _profile(exported, path, settings)
    loaded = Project.find(path, config, note).load(path, model)
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch) / "model.onnx"
        export_onnx(loaded.program, exported)
        return _profile(exported, path, settings)


def _profile(exported: Path, path: Path, settings: ProfileSettings) -> Profile:
    engine = OnnxRuntimeSession(exported, settings.threads)
    inputs = onnx_inputs(engine, settings.batch, settings.seed)
    times = time_runs([wall_clock(lambda: engine(*inputs))], settings.runs, _WARMUP, settings.seed)
    operators = profile_onnx(exported, inputs, settings.threads, _PROFILED_RUNS)
    return Profile(str(path), settings, percentiles(times[:, 0]), tuple(operators))
