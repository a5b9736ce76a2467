"""The stage that writes the compiled network as model.pt2 and ONNX files, and compares them with torch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prunec.compiler.bundle.bundle_names import MODEL_ONNX, MODEL_PT2, typed_name
from prunec.compiler.facts.outcome import Exported
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import NO_DATA
from prunec.passes.interruption import endable_anywhere
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.engines.remote import open_onnx, survived
from prunec.runtime.evaluate import EVALUATION_BATCH, Batches, Metric, evaluate, predictor
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx, save_with_onnx
from prunec.runtime.onnx_precision import typed_form
from prunec.runtime.onnx_signature import Signature
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target


def export(
    request: Request,
    program: Program,
    folder: Path,
    compare: Callable[[Program, Path, int], float | Unknown] = onnx_vs_torch,
) -> Exported:
    """Write the compiled program's model.pt2 and ONNX files into a folder; compare ONNX Runtime with torch."""
    onnx = folder / MODEL_ONNX
    children.child()  # loads its libraries meanwhile
    program = program.inference()
    with endable_anywhere():
        checked = survived(partial(save_with_onnx, program, folder / MODEL_PT2, onnx))
        typed_onnx = survived(partial(write_typed, request.target, onnx, folder))
    compared = partial(compare, program, onnx, request.settings.seed)
    return Exported(
        onnx=onnx,
        typed_onnx=typed_onnx,
        difference_from_torch=checked if isinstance(checked, Unknown) else survived(compared),
        sparsity=tuple(check_sparsity(onnx if isinstance(typed_onnx, Unknown) else typed_onnx)),
        accuracy=typed_onnx if isinstance(typed_onnx, Unknown) else _accuracy(request, program, typed_onnx),
        compiled_bytes=onnx.stat().st_size,
    )


def export_untrained(target: Target, program: Program, folder: Path) -> Path:
    """Write a program into a folder as the model that an engine of a target is built from, to be timed and no more.

    Raises:
        NumericMismatchError: A weight is beyond the precision's range.
        NativeCrashError: ONNX's native code dies of it.
    """
    with endable_anywhere():
        export_onnx(program.inference(), folder / MODEL_ONNX)
        return write_typed(target, folder / MODEL_ONNX, folder)


def export_dense(request: Request, path: Path) -> int:
    """Write the dense network's float32 file, to be measured beside the compiled one; its size in bytes."""
    with endable_anywhere():
        survived(partial(export_onnx, request.dense, path))  # what dies of it dies where it is timed, too
    return path.stat().st_size


def write_typed(target: Target, source: Path, folder: Path) -> Path:
    """Write the form of a float32 model that the target's precision asks for; for float32 it is the model itself.

    For INT8 it is the form in which all is computed that isn't on grids.

    Raises:
        NumericMismatchError: A weight is beyond the precision's range.
        NativeCrashError: ONNX's native code dies of the model.
    """
    return typed_form(target.float_precision, source, folder / typed_name(target))


def _accuracy(request: Request, program: Program, typed_onnx: Path) -> float | Unknown:
    if request.data is None:
        return NO_DATA
    if request.target.precision == "bf16":
        return Unknown("ONNX Runtime has no bfloat16 convolutions on CPUs.")
    request.settings.progress.stage("accuracy, exported")
    batches, metric = request.data.test.batches(EVALUATION_BATCH), request.objective.metric
    return survived(lambda: onnx_accuracy(typed_onnx, Signature.of(program), batches, metric))


def onnx_accuracy(path: Path, signature: Signature, batches: Batches, metric: Metric) -> float:
    """Metric of an ONNX file of a network with this signature under ONNX Runtime.

    Raises:
        NativeCrashError: ONNX Runtime dies of it.
    """
    with open_onnx(path, threads=0) as session:
        return evaluate(predictor(session, signature.inputs, signature.outputs), batches, metric)
