"""What a report claims, held against the program of its bundle; its gates judged again."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from prunec.compiler.bundle.bundle_names import MODEL_ONNX, REPORT
from prunec.compiler.bundle.bundle_reader import Bundle, bundle_onnx
from prunec.compiler.commands.verify_checks import NAMED, JudgedError, refuse
from prunec.compiler.facts.outcome import NO_ENGINE_ASKED
from prunec.compiler.gates.judging import gate_of_row, judge
from prunec.compiler.gates.own_gates import (
    MAX_ONNX_VS_TORCH_RELATIVE_ERROR,
    MIN_DONE_PERCENT,
    EngineBuilt,
    MaxOnnxVsTorch,
    MinDonePercent,
)
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.report.ledger_part import chain
from prunec.compiler.report.network_parts import input_parts
from prunec.compiler.report.nulls import NOT_RECORDED
from prunec.compiler.report.report import Report
from prunec.passes.cost import Layer
from prunec.passes.errors import InputError, MissingDependencyError, SparsityGateError, UsageError
from prunec.passes.fold import FoldParameters
from prunec.passes.identity import weights_sha256
from prunec.passes.program import Program
from prunec.passes.two_four import eligibility, is_two_four
from prunec.passes.two_four_words import two_four_words
from prunec.passes.unknown import Unknown, known
from prunec.runtime.onnx_sparsity import check_sparsity, weight_states

_ROUNDING = 1e-9
#: Stands for a latency of 0, which none has.
_LEAST_MS = 1e-9


@dataclass(frozen=True)
class Claim:
    """A figure of a report, by its path, and the same figure computed anew."""

    path: str
    told: object
    found: object

    @property
    def holds(self) -> bool:
        """Whether they are equal, floating-point numbers but for rounding."""
        if isinstance(self.told, float) and isinstance(self.found, float):
            return math.isclose(self.told, self.found, rel_tol=_ROUNDING)
        return self.told == self.found


def check_claims(bundle: Bundle, program: Program) -> str:
    """Say that the figures of a report are those of the program, as far as the report has them.

    Raises:
        InputError: Some differ.
    """
    claims = [*_network_claims(bundle, program), *_inner_claims(bundle.report), *_step_claims(bundle.report)]
    claims += _layer_claims(bundle.report, program)
    told = [claim for claim in claims if not isinstance(claim.told, Unknown)]
    refuse(REPORT, [f"{c.path} is {c.told!r}, computed anew {c.found!r}" for c in told if not c.holds])
    older = [claim.path for claim in claims if claim.told == NOT_RECORDED]
    return f"{len(told)} figures are as computed anew" + (f"; not recorded: {', '.join(older)}" if older else "")


def unique_layers(program: Program) -> list[Layer]:
    """The layers of a program, each weight once, in the order of a report's rows."""
    return list({layer.weight: layer for layer in program.layers()}.values())


def names_in_program(
    names: Collection[str], program: Program, fits: Callable[[str, Tensor], bool]
) -> dict[str, str | None]:
    """The name that each of some tensors has in a program that was read from model.pt2; None where it isn't there.

    Of a tied tensor such a program has one of its names: then it is that of the first tensor which fits.
    """
    tensors = program.tensors()
    return {
        name: name if name in tensors else next((other for other in tensors if fits(name, tensors[other])), None)
        for name in names
    }


def _network_claims(bundle: Bundle, program: Program) -> Iterator[Claim]:
    """What the compiled program and the sizes of files tell."""
    report, entries = bundle.report, bundle.manifest.files
    inputs = tuple(tuple(tensor.shape[1:]) for tensor in program.example_inputs)
    yield Claim("macs.compiled", report.macs.compiled, program.macs())
    yield Claim("parameters.compiled", report.parameters.compiled, program.parameter_count())
    yield Claim("parameters.zero_fraction", report.parameters.zero_fraction, program.zero_fraction())
    yield Claim("model.compiled_sha256", report.model.compiled_sha256, weights_sha256(program))
    yield Claim("model.input_shapes", report.model.input_shapes, inputs)
    yield Claim("model.inputs", report.model.inputs, input_parts(program.inputs))
    yield Claim("model.outputs", report.model.outputs, program.output_names)
    yield Claim("model.lost_in_capture", report.model.lost_in_capture, program.lost_in_capture)
    if "batch_is_dynamic" in report.model.model_fields_set:
        yield Claim("model.batch_is_dynamic", report.model.batch_is_dynamic, program.batch_is_dynamic)
    yield Claim("size_bytes.compiled_onnx", report.size_bytes.compiled_onnx, entries[MODEL_ONNX].bytes)
    if not isinstance(report.engine, Unknown) and report.engine.path in entries:
        entry = entries[report.engine.path]
        yield Claim("size_bytes.engine", report.size_bytes.engine, entry.bytes)
        yield Claim("engine.sha256", report.engine.sha256, entry.sha256)


def _inner_claims(report: Report) -> Iterator[Claim]:
    """Figures that follow from others of the same report."""
    macs, parameters = report.macs, report.parameters
    yield Claim("macs.speedup", macs.speedup, macs.dense / max(macs.compiled, 1))
    yield Claim("macs.dense >= macs.compiled", macs.dense >= macs.compiled, True)
    yield Claim("parameters.dense >= parameters.compiled", parameters.dense >= parameters.compiled, True)
    for name in ("latency", "latency_cpu"):
        if (latency := known(getattr(report, name))) is not None:
            found = latency.dense_ms.median / max(latency.compiled_ms.median, _LEAST_MS)
            yield Claim(f"{name}.speedup", latency.speedup, found)
    if len(report.runs) == 1:
        yield Claim("runs.0.accuracy", report.runs[0].accuracy, report.accuracy.exported)
    measured = [accuracy for run in report.runs if (accuracy := known(run.accuracy)) is not None]
    if measured and len(measured) == len(report.runs):
        yield Claim("runs_summary.mean", report.runs_summary.mean, sum(measured) / len(measured))
    pruning = known(report.pruning)
    for group in () if pruning is None else pruning.groups:
        yield Claim(f"pruning.groups {group.name}: kept <= width", group.kept <= group.width, True)


def _step_claims(report: Report) -> Iterator[Claim]:
    """The rows of steps and of the ledger, which lead from the dense network to the compiled one."""
    if isinstance(report.steps, Unknown) or not report.steps:
        yield Claim("steps", report.steps, None)
    else:
        first, last = report.steps[0], report.steps[-1]
        yield Claim("steps.0.macs", first.macs, report.macs.dense)
        yield Claim(f"steps.{len(report.steps) - 1}.macs", last.macs, report.macs.compiled)
        yield Claim("steps.0.accuracy", first.accuracy, report.accuracy.dense)
        if (pipeline := _pipeline(report)) is not None:
            names = ("dense", *map(str, pipeline.steps))
            yield Claim("steps", tuple(step.name for step in report.steps), names)
            labels = {step.kind.accuracy: row for step, row in zip(pipeline.steps, report.steps[1:], strict=False)}
            for label in labels.keys() - {""}:
                yield Claim(f"accuracy.{label}", getattr(report.accuracy, label), labels[label].accuracy)
    if isinstance(report.ledger, Unknown):
        yield Claim("ledger", report.ledger, None)
    elif line := chain(report.ledger):
        yield Claim("ledger, first weights", line[0].weights_out, report.model.source_sha256)
        yield Claim("ledger, last weights", line[-1].weights_out, report.model.compiled_sha256)


def _layer_claims(report: Report, program: Program) -> Iterator[Claim]:
    """The rows of layers: shapes, filters kept, and what can be 2:4."""
    layers, rows = unique_layers(program), report.layers
    pipeline = _pipeline(report)
    # A fold gives weights other names, and one to what was computed twice.
    is_folded = pipeline is None or bool(pipeline.of(FoldParameters))
    found = [(layer.operator, layer.shape) for layer in layers]
    told = [(row.operator, row.compiled_shape) for row in rows]
    if is_folded and len(rows) != len(layers):
        yield Claim("layers, shapes", sorted(set(told)), sorted(set(found)))
        return
    yield Claim("layers, shapes", told, found)
    tensors = program.tensors()
    for row, layer in zip(rows, layers, strict=False):
        # Of a tied weight model.pt2 has one name, and of a computed one none.
        if not is_folded and layer.weight in tensors and f"{row.name}.weight" in tensors:
            yield Claim(f"layer {row.name}: name", row.name, layer.name)
    by_weight = {entry.weight: entry.eligible for entry in eligibility(program)}
    for row, layer in zip(rows, layers, strict=False):
        yield Claim(f"layer {row.name}: kept", row.kept, layer.shape[0])
        if (sparsity := known(row.sparsity)) is not None:
            yield Claim(f"layer {row.name}: eligible", sparsity.eligible, by_weight[layer.weight])


def _pipeline(report: Report) -> Pipeline | None:
    """The report's pipeline; None where a plug-in that it names isn't installed."""
    try:
        return parse_pipeline(report.pipeline)
    except (UsageError, MissingDependencyError):
        return None


def check_two_four(bundle: Bundle, program: Program) -> str:
    """Say that the layers that the report says are 2:4 are so in the ONNX model, and no others, and the masks hold.

    Raises:
        SparsityGateError: A layer isn't 2:4 that is said to be, or a mask doesn't hold.
        InputError: A layer is 2:4 of which the report says that it isn't.
    """
    layers = check_sparsity(bundle_onnx(bundle.folder))
    exported = {entry.layer: entry for entry in layers}
    sparsities = {layer.name: known(layer.sparsity) for layer in bundle.report.layers}
    claimed = [name for name, sparsity in sparsities.items() if sparsity is not None and sparsity.valid]
    if wrong := [name for name in claimed if name not in exported or not exported[name].valid]:
        raise SparsityGateError(f"the report says 2:4, the ONNX model doesn't hold it: {', '.join(wrong[:NAMED])}")
    others = [name for name, told in sparsities.items() if told is not None and not told.valid and name in exported]
    refuse(REPORT, [f"{name} is told not to be 2:4, and is" for name in others if exported[name].valid])
    tensors, masks = program.tensors(), program.masks

    def holds(name: str, weight: Tensor) -> bool:
        return weight.shape == masks[name].shape and not bool(weight[~masks[name]].any()) and is_two_four(weight)

    for name, present in names_in_program(masks, program, holds).items():
        if present is None or not holds(name, tensors[present]):
            raise SparsityGateError(f"the mask of {name} in model.pt2 doesn't hold")
    if program.masks and not claimed:
        raise InputError(f"model.pt2 has {len(program.masks)} masks, which the report's layers don't tell of")
    return f"{two_four_words(weight_states(layers))}, as the report says"


def check_gates(report: Report) -> str:
    """Say that the gates, judged again by the report's values, have the verdicts that it tells.

    Raises:
        PrunecError: A gate fails that the report lets pass, with the gate's exit code; or a gate is missing.
    """
    _check_needed(report)
    unjudged, failing = [], []
    for row in report.gates:
        try:
            gate = gate_of_row(row)
        except (UsageError, MissingDependencyError):
            unjudged.append(row.name)
            continue
        again = judge(gate, report, row.allow_unknown)
        if (known(again.value), again.verdict, gate.limit) != (known(row.value), row.verdict, row.limit):
            told, found = (f"{known(each.value)}, {each.verdict}" for each in (row, again))
            raise JudgedError(gate.exit_code, f"{row.name} is told as {told}; judged again it is {found}")
        if again.verdict == "failed" or (again.verdict == "unknown" and not again.allow_unknown):
            failing.append((gate.exit_code, row.name))
    if failing and report.passed:
        code, name = min(failing)
        raise JudgedError(code, f"{name} fails, and the report says {report.status}")
    others = f"; not installed, so not judged: {', '.join(unjudged)}" if unjudged else ""
    return f"{len(report.gates) - len(unjudged)} gates have the same verdicts judged again{others}"


def _check_needed(report: Report) -> None:
    """Refuse a report that lacks a gate which its compile must have had, or has it with another limit."""
    needed: dict[str, tuple[float, ...]] = {MaxOnnxVsTorch.name: (MAX_ONNX_VS_TORCH_RELATIVE_ERROR,)}
    if isinstance(report.engine, Unknown) and report.engine.reason != NO_ENGINE_ASKED:
        needed[EngineBuilt.name] = (1,)
    if any(step.aim != NOT_RECORDED for step in known(report.steps) or ()):
        needed[MinDonePercent.name] = (MIN_DONE_PERCENT, 0)
    limits = {gate.name: gate.limit for gate in report.gates}
    if wrong := [name for name, allowed in needed.items() if limits.get(name) not in allowed]:
        raise InputError(f"the gate {wrong[0]} is missing, or has another limit than compiles give it")


def check_outcome(report: Report) -> str:
    """Say that the report's outcome is PASSED.

    Raises:
        PrunecError: It is FAILED, with the report's exit code.
    """
    failed = [gate.name for gate in report.gates if gate.verdict == "failed"]
    if not report.passed:
        by = f" by {', '.join(failed)}" if failed else ""
        raise JudgedError(report.exit_code, f"the compile FAILED{by}, exit code {report.exit_code}")
    return "the compile PASSED"
