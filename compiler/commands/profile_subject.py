"""What ``prunec profile`` takes: a checkpoint, a bundle, an ONNX file, or the engine's file in a bundle."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from prunec.compiler.bundle.bundle_reader import bundle_onnx, bundle_program, intact_bundle
from prunec.compiler.bundle.manifest import MANIFEST_NAME
from prunec.compiler.commands.artifacts import onnx_file
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Note, Project
from prunec.compiler.report.engine_facts import stored_engine, target_and_engine
from prunec.passes.costs.cost_model import CostKey
from prunec.passes.errors import InputError, MissingDependencyError
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.measuring import not_run_here
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.network_ranges import ranges_words
from prunec.runtime.engines.onnxruntime import OnnxRuntime
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo
from prunec.runtime.engines.remote import RemoteSession
from prunec.runtime.numerics import batch_sizes, random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_inputs import random_onnx_inputs
from prunec.runtime.onnx_reading import read_onnx
from prunec.runtime.processor import processor
from prunec.runtime.target import Target

_THIS_CPU = Target.parse("cpu")


@dataclass(frozen=True)
class ProfileSubject:
    """A model and the engine that runs it.

    Attributes:
        path: File or folder that is profiled.
        onnx_path: The model as ONNX.
        engine: The engine: the ONNX file itself under ONNX Runtime.
        title: Name of the engine's kind.
        uses_threads: Whether the number of CPU threads matters.
        program: The model's program; None for an ONNX file alone.
        target: The target that it was compiled for; None where it was not.
    """

    path: Path
    onnx_path: Path
    engine: EngineInfo
    title: str
    uses_threads: bool = True
    program: Program | None = None
    target: Target | None = None

    def cost_key(self, batch: int, threads: int) -> CostKey:
        """What a cost model of it must hold for."""
        target = _THIS_CPU if self.is_onnx or self.target is None else self.target
        hardware = processor() if self.engine.gpu is None else self.engine.gpu
        threads_used, dims = threads if self.uses_threads else None, ranges_words(self.engine.ranges)
        return CostKey(str(target), hardware, self.engine.builder, threads_used, batch, dims)

    @property
    def is_onnx(self) -> bool:
        """Whether ONNX Runtime runs it on this CPU."""
        return self.engine.kind == OnnxRuntime.name

    def inputs(self, batch: int, seed: int) -> list[NDArray[Any]]:
        """Random inputs by the network's own description.

        Raises:
            InputError: The network or the engine runs at other batches only.
        """
        if self.program is None:
            return random_onnx_inputs(read_onnx(self.onnx_path), str(self.onnx_path), batch, seed)
        (possible,) = batch_sizes(self.program, (batch,))
        if possible != batch:
            raise InputError(f"The network runs at a batch of {possible} only.", hint=f"Use --batch {possible}.")
        sizes = self.engine.ranges.get("batch")
        if sizes is not None and not sizes.smallest <= batch <= sizes.largest:
            raise InputError(
                f"The engine takes batches of {sizes.smallest} to {sizes.largest}, got {batch}.",
                hint=f"Use --batch {sizes.nearest(batch)}.",
            )
        return random_inputs(self.program, batch, seed)

    def session(self, threads: int) -> RemoteSession:
        """The engine, not yet loaded."""
        return RemoteSession(self.engine, self.title, threads)


@contextmanager
def opened(path: Path, *, config: Path | None, model: ModelOptions, note: Note) -> Iterator[ProfileSubject]:
    """What a path stands for, inside a ``with`` block; a checkpoint is exported first.

    Raises:
        PrunecError: It can't be loaded or exported, or its engine doesn't run on this machine.
    """
    if path.is_file() and path.suffix not in (".onnx", ".pt2") and (path.parent / MANIFEST_NAME).exists():
        yield _engine(path)
        return
    exported = onnx_file(path, as_deployed=False)
    if exported is not None and path.is_dir():
        target = Target.parse(intact_bundle(path).report.target)
        yield _under_onnxruntime(path, exported, bundle_program(path), target)
    elif exported is not None:
        yield _under_onnxruntime(path, exported)
    else:
        program = Project.find(path, config, note).load(path, model, note).program
        with tempfile.TemporaryDirectory() as scratch:
            exported = Path(scratch) / "model.onnx"
            export_onnx(program, exported)
            yield _under_onnxruntime(path, exported, program)


def _under_onnxruntime(
    path: Path, exported: Path, program: Program | None = None, target: Target | None = None
) -> ProfileSubject:
    engine = OnnxRuntime().build(_THIS_CPU, exported, exported.parent, EngineOptions())
    return ProfileSubject(path, exported, engine, OnnxRuntime.title, program=program, target=target)


def _engine(path: Path) -> ProfileSubject:
    """The engine of a bundle, by the path of its file."""
    bundle = intact_bundle(path.parent)
    part = bundle.report.engine
    if isinstance(part, Unknown) or part.path != path.name:
        raise InputError(
            f"{path} is no engine of its bundle.", hint="Give the bundle's folder, its ONNX file or its engine's file."
        )
    target, kind = target_and_engine(bundle.report)
    with ENGINES.blame(kind.name):
        runs_here, uses_threads = kind.runs_here(target), kind.uses_threads
    if not runs_here:
        raise MissingDependencyError(
            f"{path} can't be profiled here: it {not_run_here(kind, target).reason}",
            hint=f"Run prunec profile {path} on the device, or prunec profile {path.parent} for the ONNX model here.",
        )
    engine, program = stored_engine(part, bundle.folder), bundle_program(bundle.folder)
    return ProfileSubject(path, bundle_onnx(bundle.folder), engine, kind.title, uses_threads, program, target)
