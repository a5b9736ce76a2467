"""The ONNX files and the engine of a bundle, held against its program."""

import tempfile
from pathlib import Path

import onnx

from prunec.compiler.bundle.bundle_names import MODEL_ONNX, MODEL_PT2, TYPED_ONNX
from prunec.compiler.bundle.bundle_reader import Bundle, bundle_onnx
from prunec.compiler.commands.verify_checks import NotCheckedError
from prunec.compiler.gates.own_gates import MAX_ONNX_VS_TORCH_RELATIVE_ERROR
from prunec.compiler.machine.versions import tool_version
from prunec.compiler.report.engine_facts import stored_engine, target_and_engine
from prunec.compiler.stages.export_network import write_typed
from prunec.passes.errors import MissingDependencyError, NumericMismatchError, UsageError
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import is_quantized
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.devices import ON_GRIDS
from prunec.runtime.engines.measuring import compare_with_torch
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.protocol import TOLERANCES
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_difference import onnx_difference, weights_difference
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp32
from prunec.runtime.onnx_quantizers import rounding_in_steps
from prunec.runtime.target import Target

_SEED = 0
#: Precision of what a typed file computes between its grids, where that is compared.
_OTHER_PRECISION: dict[str, str] = dict.fromkeys(ON_GRIDS, "fp16")
#: Steps of its grid that a weight may lie from its whole number, and the rounding of the division.
_HALF_A_STEP = 0.5 + 1e-3
#: What decides how a network becomes an ONNX file.
_EXPORTED_BY = ("torch", "onnx", "onnxscript", "onnxruntime", "prunec")


def check_weights(bundle: Bundle, program: Program) -> str:
    """Say that the ONNX files hold the program: exported again, it gives the same operators and weights.

    Raises:
        NumericMismatchError: They differ.
        NotCheckedError: They have another form, which other versions gave them.
    """
    typed = bundle_onnx(bundle.folder)
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / MODEL_ONNX
        export_onnx(program, fresh)
        _compare(bundle, fresh, bundle.folder / MODEL_ONNX)
        rounded = _check_rounding(bundle.folder / MODEL_ONNX, program)
        if typed.name == MODEL_ONNX:
            return f"{MODEL_ONNX} holds the weights of {MODEL_PT2}{rounded}"
        try:
            target = Target.parse(bundle.report.target)
        except (UsageError, MissingDependencyError) as error:
            raise NotCheckedError(error.message) from error
        _compare(bundle, write_typed(target, fresh, Path(scratch)), typed)
    return f"{MODEL_ONNX} and {typed.name} hold the weights of {MODEL_PT2}{rounded}"


def _compare(bundle: Bundle, fresh: Path, stored: Path) -> None:
    difference = onnx_difference(fresh, stored)
    if difference is None:
        return
    text = f"{stored.name} isn't what {MODEL_PT2} is exported to: {difference.text}"
    others = [tool for tool in _EXPORTED_BY if bundle.manifest.versions.get(tool) != tool_version(tool)]
    if difference.is_structural and others:
        if (weight := weights_difference(fresh, stored)) is not None:
            raise NumericMismatchError(f"{stored.name} isn't what {MODEL_PT2} is exported to: {weight.text}")
        raise NotCheckedError(f"{text}; it was exported by another version of {' and '.join(others)}")
    raise NumericMismatchError(text)


def _check_rounding(path: Path, program: Program) -> str:
    """What to say of numbers of grids that stand for weights: none is farther off than half a step.

    Raises:
        NumericMismatchError: One is.
    """
    if not is_quantized(program.graph):
        return ""
    weights = {name: parameter.detach().double().numpy() for name, parameter in program.parameters().items()}
    steps = rounding_in_steps(onnx.load(path), weights)
    if wrong := [name for name, distance in steps.items() if distance > _HALF_A_STEP]:
        raise NumericMismatchError(f"{path.name}: {wrong[0]} is {steps[wrong[0]]:.2g} steps from what stands for it")
    return f", {len(steps)} of them as numbers of grids within half a step"


def check_outputs(bundle: Bundle, program: Program) -> str:
    """Say that ONNX Runtime computes what torch does, of every ONNX file, whichever versions exported it.

    Raises:
        NumericMismatchError: The outputs differ by more than the precision's rounding.
        NativeCrashError: ONNX Runtime dies.
    """
    error = onnx_vs_torch(program, bundle.folder / MODEL_ONNX, seed=_SEED)
    text = _within(error, MAX_ONNX_VS_TORCH_RELATIVE_ERROR, MODEL_ONNX, MODEL_PT2)
    typed = [(TOLERANCES[_OTHER_PRECISION.get(p, p)], bundle.folder / name) for p, name in TYPED_ONNX.items()]
    with tempfile.TemporaryDirectory() as scratch:
        for limit, path in typed:
            if not path.exists():
                continue
            widened = Path(scratch) / path.name
            children.call(f"ONNX read {path.name}", to_fp32, path.absolute(), widened)
            text += f"; {_within(onnx_vs_torch(program, widened, seed=_SEED), limit, path.name, MODEL_PT2)}"
    return text


def check_engine(bundle: Bundle, program: Program) -> str:
    """Say that the engine, loaded and run, computes what torch does.

    Raises:
        NumericMismatchError: The outputs differ.
        MissingDependencyError: The engine can't be loaded, though this machine runs such.
        NotCheckedError: There is none, or this machine doesn't run it.
    """
    engine = bundle.report.engine
    if isinstance(engine, Unknown):
        raise NotCheckedError(f"the bundle has none: {engine.reason}")
    try:
        target, kind = target_and_engine(bundle.report)
    except (UsageError, MissingDependencyError) as error:
        raise NotCheckedError(error.message) from error
    with ENGINES.blame(kind.name):
        runs_here, limit = kind.runs_here(target), kind.tolerance(target.precision)
    if not runs_here:
        raise NotCheckedError(f"{engine.path} runs on {target.info.title} only, which isn't here")
    stored = stored_engine(engine, bundle.folder)
    return _within(compare_with_torch(kind, stored, program), limit, engine.path, "torch")


def _within(error: float, limit: float, what: str, reference: str) -> str:
    text = f"{what} differs from {reference} by {error:.1e} (relative), allowed {limit:g}"
    if not error < limit:
        raise NumericMismatchError(text)
    return text
