"""The figures of a report in words, shared by the terminal summary and the HTML page."""

from dataclasses import dataclass

from prunec.compiler.pipeline.own_steps import ACCURACY_STAGES
from prunec.compiler.report.diagnosis_words import diagnosis_rows
from prunec.compiler.report.engine_parts import GatePart, LatencyPart
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import ControlPart, RecoveryPart
from prunec.passes.two_four_words import TwoFourState, two_four_counts, two_four_state
from prunec.passes.unknown import Unknown, known, reason_of

NOT_MEASURED = "not measured"
UNKNOWN = "\u2013"
TIMES = "\u00d7"
PLUS_MINUS = "\u00b1"


@dataclass(frozen=True)
class Figure:
    """A figure in words: what it is, its value, and the detail that keeps it honest."""

    label: str
    value: str
    detail: str
    measured: bool = True


def _final_accuracy(report: Report) -> tuple[str, float] | None:
    """The accuracy of the most finished form that was evaluated: (stage, fraction)."""
    for stage in reversed(ACCURACY_STAGES[1:]):
        if (value := known(getattr(report.accuracy, stage))) is not None:
            return stage, value
    return None


def accuracy_lost_points(report: Report) -> float | None:
    """Dense minus final accuracy in percentage points; negative where the compiled network is better."""
    final, dense = _final_accuracy(report), known(report.accuracy.dense)
    return None if final is None or dense is None else round(100 * (dense - final[1]), 9)


def measured_latency(report: Report) -> tuple[LatencyPart, str] | None:
    """The latency on the target where it was measured, else on this CPU, with the place in words."""
    if not isinstance(report.latency, Unknown):
        return report.latency, f"on the target {report.target}"
    if not isinstance(report.latency_cpu, Unknown):
        return report.latency_cpu, "on this CPU under ONNX Runtime, not on the target"
    return None


def two_four_states(report: Report) -> list[TwoFourState] | Unknown:
    """Which layers are 2:4, could be and cannot be; older reports of dense networks don't tell."""
    states = []
    for layer in report.compiled_layers:
        if isinstance(layer.sparsity, Unknown):
            return layer.sparsity
        states.append(two_four_state(layer.sparsity.eligible, layer.sparsity.valid))
    return states


def headline(report: Report) -> list[Figure]:
    """The figures a reader looks for first, in order."""
    macs = report.macs
    macs_detail = f"{si(macs.dense)} → {si(macs.compiled)} MACs per sample"
    return [
        Figure("MAC speed-up", f"{macs.speedup:.2f}{TIMES}", macs_detail),
        _speedup_figure(report),
        _accuracy_figure(report),
        _two_four_figure(report),
        _size_figure(report),
        _parameters_figure(report),
    ]


def _speedup_figure(report: Report) -> Figure:
    if (measured := measured_latency(report)) is None:
        return Figure("Measured speed-up", NOT_MEASURED, reason_of(report.latency), measured=False)
    latency, place = measured
    low, high = latency.speedup_interval
    detail = f"95 % interval {low:.2f} to {high:.2f}{TIMES}, {place}"
    label = "Measured speed-up" if known(report.latency) is not None else "Measured speed-up, CPU"
    return Figure(label, f"{latency.speedup:.2f}{TIMES}", detail)


def _accuracy_figure(report: Report) -> Figure:
    lost, final, dense = accuracy_lost_points(report), _final_accuracy(report), known(report.accuracy.dense)
    if lost is None or final is None or dense is None:
        return Figure("Accuracy lost", NOT_MEASURED, reason_of(report.accuracy.dense), measured=False)
    detail = f"{report.accuracy.metric} {percent(dense)} → {percent(final[1])} ({final[0]})"
    return Figure("Accuracy lost", f"{lost:.2f} points", detail)


def depth_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of the line on removed branches; none where there are none."""
    names = report.removed_branches
    what = "branch" if len(names) == 1 else "branches"
    return [("Depth", f"{len(names)} {what} removed: {', '.join(names)}")] if names else []


def _two_four_figure(report: Report) -> Figure:
    states = two_four_states(report)
    if isinstance(states, Unknown):
        return Figure("2:4 layers", NOT_MEASURED, states.reason, measured=False)
    are, could, cannot = two_four_counts(states)
    return Figure("2:4 layers", f"{are} of {len(states)}", f"{could} could be, {cannot} cannot be")


def _size_figure(report: Report) -> Figure:
    sizes = report.size_bytes
    if isinstance(sizes.compiled_onnx, Unknown):
        return Figure("Size", NOT_MEASURED, sizes.compiled_onnx.reason, measured=False)
    dense = "" if isinstance(sizes.dense_onnx, Unknown) else f"dense {megabytes(sizes.dense_onnx)}"
    engine = "no engine" if isinstance(sizes.engine, Unknown) else f"engine {megabytes(sizes.engine)}"
    return Figure("ONNX size", megabytes(sizes.compiled_onnx), ", ".join(part for part in (dense, engine) if part))


def _parameters_figure(report: Report) -> Figure:
    counts = report.parameters
    ratio, share = counts.dense / max(counts.compiled, 1), known(counts.zero_fraction)
    zeros = "" if share is None else f", {percent(share)} of them zero"
    return Figure("Parameter reduction", f"{ratio:.2f}{TIMES}", f"{si(counts.dense)} → {si(counts.compiled)}{zeros}")


def retraining_rows(report: Report) -> list[tuple[str, str]]:
    """Label and value of every line on the retraining and its controls; none where nothing was retrained."""
    recovery, rows = known(report.recovery), _dense_rows(report)
    rows += [] if recovery is None else _recovery_rows(recovery)
    mean, deviation = known(report.runs_summary.mean), known(report.runs_summary.standard_deviation)
    if len(report.runs) > 1 and mean is not None and deviation is not None:
        spread = f"{percent(mean)} in the mean of {len(report.runs)}, +- {100 * deviation:.2f}"
        rows.append((f"{report.accuracy.metric} by seed", spread))
    return rows + [(f"Control {control.name}", _control_words(control)) for control in report.controls]


def _dense_rows(report: Report) -> list[tuple[str, str]]:
    """The line on the dense network where it isn't one that was trained before."""
    epochs, by_this_run = known(report.pretraining.epochs), known(report.pretraining.by_this_run)
    if epochs == 0:
        return [("Dense network", "random weights" + (", drawn by this run" if by_this_run else ""))]
    if not by_this_run:
        return []
    words = f"trained by this run from random weights, {epochs:g} epochs"
    return [("Dense network", f"{words}, weights kept at step {report.pretraining.kept_step}")]


def _recovery_rows(recovery: RecoveryPart) -> list[tuple[str, str]]:
    why = f" ({recovery.schedule_reason})" if recovery.schedule_reason else ""
    rows = [("Retraining", f"{recovery.epochs} epochs of {recovery.schedule}{why}")]
    rows += diagnosis_rows(recovery.diagnosis)
    if not isinstance(recovery.trainability_accuracy, Unknown):
        epochs = known(recovery.trainability_epochs)
        over = "" if epochs is None else f" over {epochs} epochs"
        rows.append(("Trainability", f"{percent(recovery.trainability_accuracy)}{over} of {recovery.schedule}"))
    return rows


def _control_words(control: ControlPart) -> str:
    accuracy = "not known" if isinstance(control.accuracy, Unknown) else percent(control.accuracy)
    note = f" ({control.note})" if control.note else ""
    return f"{accuracy} after {control.epochs} epochs of {control.schedule}{note}"


def gate_words(gate: GatePart) -> str:
    """A gate's value against its limit: ``accuracy lost 0.62 ≤ 1 points``."""
    label, unit = gate.label or gate.name.replace("_", " "), gate.unit
    if isinstance(gate.value, Unknown):
        return f"{label} not known (limit {gate.limit:g}{unit})"
    if gate.name.startswith("max_"):
        symbol = "≤" if gate.value <= gate.limit else ">"
    else:
        symbol = "≥" if gate.value >= gate.limit else "<"
    margin = "" if gate.margin is None else f" {PLUS_MINUS} {gate.margin:.2g}"
    return f"{label} {gate.value:.4g}{margin} {symbol} {gate.limit:g}{unit}"


def unknowns(report: Report) -> list[tuple[str, list[str]]]:
    """The unknown fields by reason: (reason, dotted paths), in the order of `reasons`; the ledger shows its own."""
    paths: dict[str, list[str]] = {}
    for path, reason in report.reasons.items():
        if not path.startswith("ledger."):
            paths.setdefault(reason, []).append(path)
    return list(paths.items())


def percent(fraction: float) -> str:
    """0.9234 -> ``92.34 %``."""
    return f"{100 * fraction:.2f} %"


def microseconds(ms: float | Unknown) -> str:
    """Three digits of milliseconds as microseconds; a dash where they aren't known."""
    return UNKNOWN if isinstance(ms, Unknown) else f"{1000 * ms:.3g}"


def predicted(ms: float) -> str:
    """A prediction in its own unit with two digits, since it is off by a fifth (docs/engines.md); no exponent."""
    return f"{float(f'{ms:.2g}'):g}"


def predicted_microseconds(ms: float | Unknown) -> str:
    """A prediction in milliseconds as microseconds; a dash where it isn't known."""
    return UNKNOWN if isinstance(ms, Unknown) else predicted(1000 * ms)


def megabytes(size_bytes: int) -> str:
    """Bytes as kB or MB, decimal."""
    return f"{size_bytes / 1e3:.0f} kB" if size_bytes < 1_000_000 else f"{size_bytes / 1e6:.2f} MB"


def si(count: int) -> str:
    """A count with three digits and its SI prefix: 41215488 -> ``41.2 M``."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {prefix}"
    return str(count)
