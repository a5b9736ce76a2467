"""The stage that builds the engine, where this machine can, and compares it with torch where it runs."""

from collections.abc import Mapping
from pathlib import Path

from prunec.compiler.facts.outcome import Built
from prunec.passes.errors import MissingDependencyError, NativeCrashError, NumericMismatchError
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import is_quantized, without_quantizers
from prunec.runtime.engines.building import build_engine
from prunec.runtime.engines.catalogue import choose_engine
from prunec.runtime.engines.measuring import compare_outputs, compare_with_torch, not_run_here
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo, EngineKind
from prunec.runtime.target import Target


def build(target: Target, options: EngineOptions, typed_onnx: Path, folder: Path, program: Program) -> Built:
    """Build the engine of a target into a folder; tell the reason where this machine can't, or the library dies of it.

    Args:
        target: Target of the engine.
        options: Options of the build.
        typed_onnx: The model, typed as the target asks.
        folder: Folder for the engine's file.
        program: The compiled program, to compare the engine with.

    Raises:
        UnsupportedModelError: The library refuses the model.
        NumericMismatchError: The engine computes something else than torch.
    """
    try:
        kind = choose_engine(target, options)
        engine = build_engine(kind, target, typed_onnx, folder, options)
        size_bytes = engine.path.stat().st_size
        if not engine.run_on_device:
            return Built(engine, size_bytes, not_run_here(kind, target), not_run_here(kind, target))
        difference, from_fp32 = _compared(kind, engine, program)
    except MissingDependencyError as error:
        return Built.nothing(str(error).replace("\n", " "))
    with ENGINES.blame(kind.name):
        limit = kind.tolerance(target.precision)
    if not difference < limit:
        raise NumericMismatchError(
            f"The engine differs from torch by {difference:.1e} (relative), allowed {limit:g} in {target.precision}.",
            hint=f"It was built by {engine.built_by}. Nothing was written.",
        )
    return Built(engine, size_bytes, difference, from_fp32)


def _compared(kind: EngineKind, engine: EngineInfo, program: Program) -> tuple[float, Mapping[str, float]]:
    """The engine's largest difference from the program, and those by output from it in float32.

    An engine that dies when it is run is taken away, unless it is the model itself.
    """
    try:
        from_fp32 = compare_outputs(kind, engine, without_quantizers(program), drawn_for=program)
        is_same = not is_quantized(program.graph)
        return (max(from_fp32.values()) if is_same else compare_with_torch(kind, engine, program)), from_fp32
    except NativeCrashError:
        if kind.file_name is not None:
            engine.path.unlink()
        raise
