"""``prunec profile``: latency percentiles, and time per operator, under ONNX Runtime on this CPU."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from prunec.compiler.bundle.bundle_reader import bundle_program
from prunec.compiler.commands.artifacts import onnx_file
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Note, Project
from prunec.passes.errors import InputError
from prunec.passes.program import Program
from prunec.passes.two_four_words import TwoFourState, two_four_state, two_four_words
from prunec.runtime import children
from prunec.runtime.engines.remote import open_onnx
from prunec.runtime.latency import Percentiles
from prunec.runtime.numerics import batch_sizes, random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_inputs import random_onnx_inputs
from prunec.runtime.onnx_reading import read_onnx
from prunec.runtime.onnx_sparsity import check_sparsity, weight_states
from prunec.runtime.profile import OperatorTime, profile_onnx

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
    """Latency of a model.

    Attributes:
        path: File or folder that was profiled.
        settings: Settings of the measurement.
        latency_ms: Latency, in milliseconds.
        operators: What ONNX Runtime really runs, after its fusions.
        two_four: State of each layer with a weight, by its path.
        two_four_words: Those states in short.
    """

    path: str
    settings: ProfileSettings
    latency_ms: Percentiles
    operators: tuple[OperatorTime, ...]
    two_four: Mapping[str, TwoFourState]
    two_four_words: str


def profile_path(
    path: Path, settings: ProfileSettings, *, config: Path | None, model: ModelOptions, note: Note = None
) -> Profile:
    """Profile a checkpoint (exported to ONNX first), a bundle (its float32 ONNX model) or an ONNX file.

    ``note`` receives the sentence that says whose code may run.

    Raises:
        PrunecError: It can't be loaded or exported.
    """
    exported = onnx_file(path, as_deployed=False)
    if exported is not None and path.is_dir():
        return _profile(exported, path, settings, _inputs(bundle_program(path), settings))
    if exported is not None:
        inputs = random_onnx_inputs(read_onnx(exported), str(exported), settings.batch, settings.seed)
        return _profile(exported, path, settings, inputs)
    program = Project.find(path, config, note).load(path, model, note).program
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch) / "model.onnx"
        export_onnx(program, exported)
        return _profile(exported, path, settings, _inputs(program, settings))


def _inputs(program: Program, settings: ProfileSettings) -> list[NDArray[Any]]:
    """Inputs by the network's own description.

    Raises:
        InputError: The network runs at another batch only.
    """
    (batch,) = batch_sizes(program, (settings.batch,))
    if batch != settings.batch:
        raise InputError(f"The network runs at a batch of {batch} only.", hint=f"Use --batch {batch}.")
    return random_inputs(program, batch, settings.seed)


def _profile(exported: Path, path: Path, settings: ProfileSettings, inputs: list[NDArray[Any]]) -> Profile:
    with open_onnx(exported, settings.threads) as session:
        latency_ms = session.latency_ms(inputs, settings.runs, settings.seed)
    profiled = exported.absolute(), inputs, settings.threads, _PROFILED_RUNS
    operators = children.call(f"ONNX Runtime profiled {exported.name}", profile_onnx, *profiled)
    layers = check_sparsity(exported)
    states = {layer.layer: two_four_state(layer.eligible, layer.valid) for layer in layers if layer.weight}
    return Profile(str(path), settings, latency_ms, tuple(operators), states, two_four_words(weight_states(layers)))
