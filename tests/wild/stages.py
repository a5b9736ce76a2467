"""The stages that every network goes through."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx

from prunec.passes import PassResult, Program, PruneFilters, analyse, capture
from prunec.passes.fold import FoldParameters
from prunec.passes.size_range import SizeRange
from prunec.runtime.engines import EngineOptions, choose_engine
from prunec.runtime.engines.building import build_engine
from prunec.runtime.engines.protocol import TOLERANCES
from prunec.runtime.engines.shapes import DEFAULT_RANGES
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.target import Target
from tests.network_checks import FLOAT32, bf16_error, check_pruned, fp16_error, macs_cut, pruned
from tests.wild.applying import check_applied
from tests.wild.batches import check_batch
from tests.wild.networks import WildNetwork
from tests.wild.recording import Recording, Said
from tests.wild.subject import Subject, subject_of

#: By L1, everything open: residual streams, attention, groups under inexact operators.
PRUNE = PruneFilters(ratio=0.3, min_channels=2)
FOR_MODULE = PruneFilters(ratio=0.3, min_channels=2, for_module=True)
TARGET = Target.parse("l4-dense-fp16")
_ACCELERATOR = b"accelerators={sm89 }"
#: The only reason for which a network without anything to prune has to stay as it is.
_OUTPUT = "an output of the network"


def examine(network: WildNetwork, recording: Recording, with_engine: bool) -> None:
    """Take a network through all stages; what needs a stage that failed isn't reached."""
    if (subject := recording.attempt("built", lambda: subject_of(network.build))) is None:
        return
    program = recording.attempt("captured", partial(_captured, subject))
    if program is None or (made := recording.attempt("pruned", partial(_pruned, program, recording))) is None:
        return
    program, result = made
    if result.modified or _has_nothing_to_prune(program, recording):
        recording.attempt("oracle", partial(_oracle, program, result, recording))
    recording.attempt("batch", lambda: recording.note("batch_error", check_batch(subject, program, result.program)))
    with tempfile.TemporaryDirectory() as folder:
        _examine_files(result.program, Path(folder), recording, with_engine)
    if result.modified:
        _examine_plans(subject, program, result, recording)


def _examine_files(program: Program, folder: Path, recording: Recording, with_engine: bool) -> None:
    path, half = folder / "model.onnx", folder / "half.onnx"
    if recording.attempt("onnx", partial(_onnx, program, path, recording)) is None:
        return
    recording.attempt("fp16", partial(_half, "fp16", partial(fp16_error, program, path, half), recording))
    if with_engine and half.exists():
        recording.attempt("engine", partial(_engine, program, half, folder))
    bfloat = folder / "bfloat.onnx"
    recording.attempt("bf16", partial(_half, "bf16", partial(bf16_error, program, path, bfloat), recording))


def _examine_plans(subject: Subject, program: Program, result: PassResult, recording: Recording) -> None:
    """Apply the plan to the module, and the plan that was made for it where that is another one."""

    def apply(kind: str, result: PassResult) -> None:
        if not result.modified:
            raise Said("nothing can be pruned for the module")
        recording.note(f"{kind}_error", check_applied(subject, program, result))

    recording.attempt("applied", partial(apply, "applied", result))
    for_module = recording.attempt("applied_for_module", lambda: pruned(FOR_MODULE, program))
    if for_module is not None and for_module.plan == result.plan:
        recording.repeat("applied", "applied_for_module")
    elif for_module is not None:
        recording.note("macs_cut_for_module", macs_cut(for_module))
        recording.attempt("applied_for_module", partial(apply, "applied_for_module", for_module))


def _captured(subject: Subject) -> Program:
    return capture(subject.module(), *subject.inputs())


def _pruned(program: Program, recording: Recording) -> tuple[Program, PassResult]:
    """The dense network, its computed weights folded where nothing can be pruned otherwise, and the pruned one."""
    result = pruned(PRUNE, program)
    if not result.modified and (folded := FoldParameters().run(program)).modified:
        program, result = folded.program, pruned(PRUNE, folded.program)
        recording.note("folded", 1)
    recording.note("macs_dense", program.macs())
    recording.note("macs_cut", macs_cut(result))
    return program, result


def _has_nothing_to_prune(program: Program, recording: Recording) -> bool:
    """Whether a network in which nothing is pruned is of a kind that has to stay as it is, which the row then says."""

    def explain() -> None:
        reasons = {reason for group in analyse(program).frozen for reason in group.reasons}
        if reasons <= {_OUTPUT}:
            raise Said("every layer makes an output of the network")
        raise AssertionError(f"nothing is pruned: {', '.join(sorted(reasons))}")

    recording.attempt("pruned", explain)
    return recording.row.is_("said", "pruned")


def _oracle(program: Program, result: PassResult, recording: Recording) -> None:
    report = check_pruned(program, result, program.example_args, program.example_kwargs)
    recording.note("oracle_error", report.masked_max_relative_error)


def _onnx(program: Program, path: Path, recording: Recording) -> float:
    export_onnx(program, path)
    onnx.checker.check_model(path, full_check=True)
    error = recording.note("onnx_error", onnx_vs_torch(program, path))
    assert error < FLOAT32, f"ONNX Runtime differs from torch by {error:.2g}"
    return error


def _half(precision: str, error_of: Callable[[], float], recording: Recording) -> None:
    error = recording.note(f"{precision}_error", error_of())
    assert error < TOLERANCES[precision], f"ONNX Runtime differs from torch in float32 by {error:.2g}"


def _engine(program: Program, form: Path, folder: Path) -> None:
    options = EngineOptions({"batch": _batch_range(program)} if program.batch_is_dynamic else {})
    info = build_engine(choose_engine(TARGET, options), TARGET, form, folder, options)
    assert _ACCELERATOR in info.path.read_bytes(), f"{info.built_by} built an engine of another device"


def _batch_range(program: Program) -> SizeRange:
    """Sizes that an engine takes by default, within the bounds of the program."""
    default = DEFAULT_RANGES["batch"]
    least, most = program.batch_bounds
    largest = default.largest if most is None else min(most, default.largest)
    return SizeRange(max(least, default.smallest), min(max(least, default.tuned), largest), largest)
