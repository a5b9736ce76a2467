"""The charts of report.html as Plotly figures, coloured by CSS variables to follow the colour scheme."""

import html
from typing import Any

import plotly.graph_objects as go

from prunec.compiler.drawing.chart_parts import ACCENT, COMPILED, DENSE, MUTED, axis, bar_trace, figure_of
from prunec.compiler.pipeline.own_steps import ACCURACY_STAGES
from prunec.compiler.report.engine_parts import LatencyPart
from prunec.compiler.report.report import Report
from prunec.passes.unknown import known

_STAGE_LABELS = {
    "pruned": "after pruning",
    "decomposed": "after low rank",
    "sparse": "after 2:4",
    "reestimated": "new batch norms",
    "recovered": "after recovery",
}


def charts(report: Report) -> dict[str, dict[str, Any]]:
    """Every chart for which the report has data: id -> Plotly figure as plain JSON."""
    figures = {
        "accuracy": _accuracy(report),
        "curve": _learning_curve(report),
        "widths": _widths(report),
        "latency": _latency(known(report.latency)),
        "latency-cpu": _latency(known(report.latency_cpu)),
    }
    return {name: figure.to_plotly_json() for name, figure in figures.items() if figure is not None}


def _accuracy(report: Report) -> go.Figure | None:
    accuracies = {stage: known(getattr(report.accuracy, stage)) for stage in ACCURACY_STAGES}
    measured = {stage: 100 * value for stage, value in accuracies.items() if value is not None}
    if not measured:
        return None
    labels = [_STAGE_LABELS.get(stage, stage) for stage in measured]
    colors = [DENSE if stage == "dense" else COMPILED for stage in measured]
    bars = bar_trace(labels, list(measured.values()), colors, "%{x}: %{y:.2f} %<extra></extra>", ".2f", width=0.55)
    metric = html.escape(report.accuracy.metric)
    return figure_of([bars], axis(showgrid=False), axis(f"{metric} on test, %", range=[0, 108]))


def _learning_curve(report: Report) -> go.Figure | None:
    recovery = known(report.recovery)
    if recovery is None or not recovery.curve:
        return None
    curve = recovery.curve
    epochs = [point.epoch for point in curve]
    rates = [point.learning_rate for point in curve]

    def line(name: str, fractions: list[float], color: str) -> go.Scatter:
        y, style = [100 * fraction for fraction in fractions], {"color": color, "width": 2.5}
        shape = {"mode": "lines+markers", "line": style, "marker": {"size": 5}}
        return go.Scatter(name=name, x=epochs, y=y, hovertemplate="epoch %{x}: %{y:.2f} %", **shape)

    dots = {"color": MUTED, "width": 1.5, "dash": "dot", "shape": "hv"}
    rate_hover = "epoch %{x}: %{y:.4g}"
    traces = [
        line("test", [point.test for point in curve], COMPILED),
        line("validation", [point.validation for point in curve], ACCENT),
        go.Scatter(
            name="learning rate", x=epochs, y=rates, yaxis="y2", mode="lines", line=dots, hovertemplate=rate_hover
        ),
    ]
    figure = figure_of(
        traces,
        axis("epoch"),
        axis(f"{html.escape(report.accuracy.metric)}, %"),
        yaxis2=_learning_rate_axis(rates),
        hovermode="x unified",
    )
    return figure.update_layout(margin={"r": 64})


def _learning_rate_axis(rates: list[float]) -> dict[str, Any]:
    """Second vertical axis: in decades for a step schedule, from zero for the others."""
    is_step_schedule = 1 < len(set(rates)) <= 8 and min(rates) > 0
    decades = {"type": "log", "exponentformat": "power", "tickmode": "linear", "dtick": 1}
    from_zero = {"rangemode": "tozero", "tickmode": "auto", "nticks": 6}
    placed = axis("learning rate", overlaying="y", side="right", showgrid=False)
    return placed | (decades if is_step_schedule else from_zero)


def _widths(report: Report) -> go.Figure | None:
    if not report.layers:
        return None
    layers = [layer for layer in report.layers if layer.factor_of is None]
    names, hover = [html.escape(layer.name) for layer in layers], "%{x}: %{y} filters"
    traces = [
        bar_trace(names, [layer.shape[0] for layer in layers], DENSE, hover, name="dense"),
        bar_trace(names, [layer.kept for layer in layers], COMPILED, hover, name="kept"),
    ]
    x = axis(showgrid=False, tickangle=-40, type="category")
    return figure_of(traces, x, axis("output filters"), barmode="group", bargap=0.3, hovermode="x unified")


def _latency(latency: LatencyPart | None) -> go.Figure | None:
    if latency is None:
        return None
    hover = "%{x}: %{y:.4g} ms"
    dense, compiled = latency.dense_ms.model_dump(), latency.compiled_ms.model_dump()
    traces = [
        bar_trace(list(dense), list(dense.values()), DENSE, hover, ".3g", name="dense"),
        bar_trace(list(compiled), list(compiled.values()), COMPILED, hover, ".3g", name="compiled"),
    ]
    top = 1.15 * max(latency.dense_ms.p99, latency.compiled_ms.p99)
    return figure_of(traces, axis(showgrid=False), axis("milliseconds", range=[0, top]), barmode="group", bargap=0.35)
