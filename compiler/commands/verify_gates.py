"""The gates of a report, judged again by its values, and held against the command that it names."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from prunec.compiler.bundle.bundle_names import REPORT
from prunec.compiler.commands.verify_checks import JudgedError, refuse
from prunec.compiler.commands.verify_claims import is_this_version
from prunec.compiler.facts.outcome import NO_ENGINE_ASKED
from prunec.compiler.gates.doubts import (
    CalibrationLimitMet,
    MaxAskedMsRatio,
    MinAskedSpeedupPercent,
    doubts,
    strict_gates,
)
from prunec.compiler.gates.gate import Gate
from prunec.compiler.gates.gate_catalogue import GATES, gate_of
from prunec.compiler.gates.judging import gate_of_row, judge
from prunec.compiler.gates.own_gates import (
    MAX_ONNX_VS_TORCH_RELATIVE_ERROR,
    MIN_DONE_PERCENT,
    EngineBuilt,
    MaxDropPoints,
    MaxLatencyMs,
    MaxOnnxVsTorch,
    MaxSizeMb,
    MinDonePercent,
    MinSpeedup,
    RequireSparsePercent,
)
from prunec.compiler.report.engine_parts import GatePart
from prunec.compiler.report.nulls import NOT_RECORDED
from prunec.compiler.report.report import Report
from prunec.passes.errors import InputError, MissingDependencyError, UsageError
from prunec.passes.notation import parse_items
from prunec.passes.unknown import Unknown, known

#: Options of `prunec compile` that ask for a gate by its limit.
_LIMITS: dict[str, Callable[[float], Gate]] = {
    "--max-drop-points": MaxDropPoints,
    "--min-speedup": MinSpeedup,
    "--max-latency-ms": MaxLatencyMs,
    "--max-size-mb": MaxSizeMb,
    "--require-sparse": RequireSparsePercent,
}
#: Options of `prunec compile` that take no value.
FLAGS = frozenset(
    {"--trust-checkpoint", "--dry-run", "--resume", "--force", "--no-engine", "--allow-unknown", "--allow-noop"}
    | {"--strict", "--allow-implausible", "--verify-each", "--cpu-latency", "--help"}
)
#: Gates of ``--strict`` that reports of older versions lack.
_LATER = {MinAskedSpeedupPercent.name, MaxAskedMsRatio.name, CalibrationLimitMet.name}
#: Gates that no option of a compile asks for.
_ALWAYS = (MaxOnnxVsTorch.name, EngineBuilt.name, MinDonePercent.name)


def check_gates(report: Report) -> str:
    """Say that the gates, judged again by the report's values, have the verdicts that it tells.

    Raises:
        PrunecError: A gate fails that the report lets pass, with the gate's exit code; a gate is missing, is there
            twice, or has another limit than the command asks for; or what speaks against the result isn't told.
    """
    _check_needed(report)
    refuse(REPORT, [*_odd_rows(report.gates), *_not_as_asked(report)])
    unjudged, failing = [], []
    for row in report.gates:
        try:
            gate = gate_of_row(row)
        except (UsageError, MissingDependencyError):
            unjudged.append(row.name)
            continue
        again = judge(gate, report, row.allow_unknown)
        if (known(again.value), again.verdict, gate.limit) != (known(row.value), row.verdict, row.limit):
            told, anew = (f"{known(each.value)}, {each.verdict}" for each in (row, again))
            raise JudgedError(gate.exit_code, f"{row.name} is told as {told}; judged again it is {anew}")
        worded = [name for name in ("label", "unit", "asked", "margin") if name in row.model_fields_set]
        if other := [name for name in worded if getattr(row, name) != getattr(again, name)]:
            raise InputError(f"the {other[0]} of the gate {row.name} is {getattr(row, other[0])!r}")
        if again.verdict == "failed" or (again.verdict == "unknown" and not again.allow_unknown):
            failing.append((gate.exit_code, row.name))
    if failing and report.passed:
        code, name = min(failing)
        raise JudgedError(code, f"{name} fails, and the report says {report.status}")
    others = f"; not installed, so not judged: {', '.join(unjudged)}" if unjudged else ""
    return f"{len(report.gates) - len(unjudged)} gates have the same verdicts judged again{others}"


def check_outcome(report: Report) -> str:
    """Say that the report's outcome is PASSED, and that it tells what speaks against it.

    Raises:
        PrunecError: It is FAILED, with the report's exit code, or its warnings are others.
    """
    failed = [gate.name for gate in report.gates if gate.verdict == "failed"]
    if not report.passed:
        by = f" by {', '.join(failed)}" if failed else ""
        raise JudgedError(report.exit_code, f"the compile FAILED{by}, exit code {report.exit_code}")
    if report.warnings != NOT_RECORDED and report.warnings != doubts(report):
        raise InputError(f"{REPORT}: the warnings are {report.warnings}, computed anew {doubts(report)}")
    return "the compile PASSED" + "".join(f"; but: {doubt}" for doubt in known(report.warnings) or ())


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


def _odd_rows(gates: Sequence[GatePart]) -> Iterator[str]:
    """Rows of gates that no compile writes."""
    names = [gate.name for gate in gates]
    yield from (f"the gate {name} stands there twice" for name in sorted({*names}) if names.count(name) > 1)
    for gate in gates:
        if "asked" in gate.model_fields_set and bool(gate.asked) == (gate.name in GATES.own):
            yield (
                f"{gate.name!r} is no gate of prunec's, and is told as one"
                if not gate.asked
                else f"{gate.name} is prunec's"
            )


def _not_as_asked(report: Report) -> Iterator[str]:
    """Gates that differ from those that the report's command asks for, where that is one of `prunec compile`."""
    try:
        words = shlex.split(report.command)
        if words[:2] != ["prunec", "compile"]:
            return
        asked = _options(words[2:])
        gates, foreign = _asked_gates(asked)
    except (ValueError, UsageError) as error:
        yield f"the command {report.command!r} can't be one: {error}"
        return
    told = {gate.name: gate for gate in report.gates}
    limits = {gate.name: gate.limit for gate in gates}
    later = set() if is_this_version(report) else _LATER
    missing = {*limits, *foreign} - told.keys() - later
    yield from (f"the command asks for the gate {name}, which is missing" for name in missing)
    for name, row in told.items():
        if name not in (*limits, *foreign, *_ALWAYS):
            yield f"the command doesn't ask for the gate {name}"
        if name in limits and row.limit != limits[name]:
            yield f"the gate {name} has the limit {row.limit:g}, the command asks for {limits[name]:g}"
        is_strict = "--strict" in asked and name in (gate.name for gate in strict_gates(()))
        if name in limits and not is_strict and row.allow_unknown != ("--allow-unknown" in asked):
            yield f"the gate {name} may be unknown: {row.allow_unknown}, which isn't what the command asks for"
    done = told.get(MinDonePercent.name)
    if done is not None and (done.limit == 0) != ("--allow-noop" in asked):
        yield f"the gate {done.name} has the limit {done.limit:g}, which isn't what the command asks for"


def _asked_gates(asked: Mapping[str, Sequence[str]]) -> tuple[list[Gate], list[str]]:
    """The gates that options ask for, and the names of those that aren't installed here."""
    gates: list[Gate] = [kind(float(asked[o][-1].removesuffix("%"))) for o, kind in _LIMITS.items() if o in asked]
    foreign = []
    for item in (item for text in asked.get("--gate", ()) for item in parse_items(text)):
        try:
            gates.append(gate_of(item))
        except (UsageError, MissingDependencyError):
            foreign.append(item.name)
    return [*gates, *(strict_gates(gates) if "--strict" in asked else ())], foreign


def _options(words: Sequence[str]) -> dict[str, list[str]]:
    """The options among the words of a command line, by their long or short name, each with all its values."""
    options: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        if word == "--":
            break
        if not word.startswith("-") or word == "-":
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        values = options.setdefault(name, [])
        if name not in FLAGS:
            values.append(value if equals else next(rest, ""))
    return options
