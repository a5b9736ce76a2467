"""The headline figures of a report and their wording, shared by the terminal summary and the HTML page."""

from dataclasses import dataclass

from prunec.compiler.report import Gate, Latency, Report
from prunec.compiler.stage_names import STAGES

NOT_MEASURED = "not measured"
UNKNOWN = "\u2013"
TIMES = "\u00d7"
_GATE_LABELS = {  # gate -> what its value is, unit
    "max_drop_points": ("accuracy lost", " points"),
    "max_onnx_vs_torch_relative_error": ("ONNX against torch, relative error", ""),
    "engine": ("engines built", ""),
    "min_speedup": ("measured speed-up", "x"),
    "require_sparse_percent": ("layers that hold 2:4", " %"),
}


@dataclass(frozen=True)
class Figure:
    """A figure in words: what it is, its value, and the detail that keeps it honest."""

    label: str
    value: str
    detail: str
    measured: bool = True


def final_accuracy(report: Report) -> tuple[str, float] | None:
    """The accuracy of the most finished form that was evaluated: (stage, fraction)."""
    for stage in reversed(STAGES[1:]):
        value = getattr(report.accuracy, stage)
        if value is not None:
            return stage, value
    return None


def accuracy_lost_points(report: Report) -> float | None:
    """Dense minus final accuracy in percentage points; negative where the compiled network is better."""
    final = final_accuracy(report)
    if final is None or report.accuracy.dense is None:
        return None
    return round(100 * (report.accuracy.dense - final[1]), 9)


def measured_latency(report: Report) -> tuple[Latency, str] | None:
    """The latency on the target where it was measured, else on this CPU, with the place in words."""
    if report.latency is not None:
        return report.latency, f"on the target {report.target}"
    if report.latency_cpu is not None:
        return report.latency_cpu, "on this CPU under ONNX Runtime, not on the target"
    return None


def two_four_counts(report: Report) -> tuple[int, int]:
    """Layers that are valid 2:4, and layers that may be."""
    sparsities = [layer.sparsity for layer in report.layers if layer.sparsity is not None]
    return sum(s.valid for s in sparsities), sum(s.eligible for s in sparsities)


def headline(report: Report) -> list[Figure]:
    """The figures a reader looks for first, in order."""
    return [
        Figure("MAC speed-up", f"{report.macs.speedup:.2f}{TIMES}", _macs_detail(report)),
        _speedup_figure(report),
        _accuracy_figure(report),
        _two_four_figure(report),
        _size_figure(report),
        _parameters_figure(report),
    ]


def _macs_detail(report: Report) -> str:
    return f"{si(report.macs.dense)} → {si(report.macs.compiled)} MACs per sample"


def _speedup_figure(report: Report) -> Figure:
    found = measured_latency(report)
    if found is None:
        reason = report.reasons.get("latency", "")
        return Figure("Measured speed-up", NOT_MEASURED, reason, measured=False)
    latency, place = found
    low, high = latency.speedup_interval
    detail = f"95 % interval {low:.2f} to {high:.2f}{TIMES}, {place}"
    label = "Measured speed-up" if report.latency is not None else "Measured speed-up, CPU"
    return Figure(label, f"{latency.speedup:.2f}{TIMES}", detail)


def _accuracy_figure(report: Report) -> Figure:
    lost, final = accuracy_lost_points(report), final_accuracy(report)
    if lost is None or final is None or report.accuracy.dense is None:
        reason = report.reasons.get("accuracy", "")
        return Figure("Accuracy lost", NOT_MEASURED, reason, measured=False)
    detail = f"{report.accuracy.metric} {percent(report.accuracy.dense)} → {percent(final[1])} ({final[0]})"
    return Figure("Accuracy lost", f"{lost:.2f} points", detail)


def _two_four_figure(report: Report) -> Figure:
    valid, eligible = two_four_counts(report)
    skipped = len(report.layers) - eligible
    detail = "all layers can be 2:4" if skipped == 0 else f"{skipped} of {len(report.layers)} layers cannot be 2:4"
    return Figure("2:4 layers", f"{valid} / {eligible}", detail)


def _size_figure(report: Report) -> Figure:
    sizes = report.size_bytes
    if sizes.compiled_onnx is None:
        return Figure("Size", NOT_MEASURED, report.reasons.get("size_bytes.compiled_onnx", ""), measured=False)
    dense = "" if sizes.dense_onnx is None else f"dense {megabytes(sizes.dense_onnx)}"
    engine = "no engine" if sizes.engine is None else f"engine {megabytes(sizes.engine)}"
    return Figure("ONNX size", megabytes(sizes.compiled_onnx), ", ".join(part for part in (dense, engine) if part))


def _parameters_figure(report: Report) -> Figure:
    counts = report.parameters
    ratio = counts.dense / max(counts.compiled, 1)
    zeros = "" if counts.zero_fraction is None else f", {percent(counts.zero_fraction)} of them zero"
    return Figure("Parameter reduction", f"{ratio:.2f}{TIMES}", f"{si(counts.dense)} → {si(counts.compiled)}{zeros}")


def gate_words(gate: Gate) -> str:
    """A gate's value against its limit: ``accuracy lost 0.62 ≤ 1 points``."""
    label, unit = _GATE_LABELS.get(gate.name, (gate.name, ""))
    if gate.value is None:
        return f"{label} not known (limit {gate.limit:g}{unit})"
    if gate.name.startswith("max_"):
        symbol = "≤" if gate.value <= gate.limit else ">"
    else:
        symbol = "≥" if gate.value >= gate.limit else "<"
    return f"{label} {gate.value:.4g} {symbol} {gate.limit:g}{unit}"


def unknowns(report: Report) -> list[tuple[str, list[str]]]:
    """What is not known, by reason: (reason, dotted paths), in the order of `reasons`."""
    paths: dict[str, list[str]] = {}
    for path, reason in report.reasons.items():
        paths.setdefault(reason, []).append(path)
    return list(paths.items())


def percent(fraction: float) -> str:
    """0.9234 -> ``92.34 %``."""
    return f"{100 * fraction:.2f} %"


def microseconds(ms: float | None) -> str:
    """Three digits of milliseconds as microseconds; a dash where they aren't known."""
    return UNKNOWN if ms is None else f"{1000 * ms:.3g}"


def megabytes(size_bytes: int) -> str:
    """Bytes as kB or MB, decimal."""
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.0f} kB"
    return f"{size_bytes / 1e6:.2f} MB"


def si(count: int) -> str:
    """A count with three digits and its SI prefix: 41215488 -> ``41.2 M``."""
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {prefix}"
    return str(count)
