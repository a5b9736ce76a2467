"""The charts of report.html as Plotly figures, coloured by CSS variables to follow the colour scheme."""

import html
from typing import Any

import plotly.graph_objects as go

from prunec.compiler.report import Latency, Report
from prunec.compiler.stage_names import STAGES

_STAGE_LABELS = {
    "pruned": "after pruning",
    "sparse": "after 2:4",
    "reestimated": "new batch norms",
    "recovered": "after recovery",
}
_DENSE, _COMPILED, _ACCENT, _MUTED = "var(--dense)", "var(--compiled)", "var(--accent)", "var(--muted)"


def charts(report: Report) -> dict[str, dict[str, Any]]:
    """Every chart for which the report has data: id -> Plotly figure as plain JSON."""
    figures = {
        "accuracy": _accuracy(report),
        "curve": _learning_curve(report),
        "widths": _widths(report),
        "latency": _latency(report.latency),
        "latency-cpu": _latency(report.latency_cpu),
    }
    return {name: figure.to_plotly_json() for name, figure in figures.items() if figure is not None}


def _axis(title: str = "", **options: Any) -> dict[str, Any]:
    title_options = {"text": title, "standoff": 10, "font": {"size": 12, "color": _MUTED}}
    return {
        "title": title_options,
        "gridcolor": "var(--line)",
        "zeroline": False,
        "automargin": True,
    } | options


def _figure(traces: list[go.Bar | go.Scatter], x: dict[str, Any], y: dict[str, Any], **layout: Any) -> go.Figure:
    figure = go.Figure(data=traces)
    figure.update_layout(
        template="none",
        margin={"l": 56, "r": 16, "t": 16, "b": 36},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12, "color": "var(--text)"},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"bgcolor": "var(--card)", "font": {"color": "var(--text)"}},
        xaxis=x,
        yaxis=y,
        **layout,
    )
    return figure


def _accuracy(report: Report) -> go.Figure | None:
    found = [(stage, getattr(report.accuracy, stage)) for stage in STAGES]
    found = [(stage, value) for stage, value in found if value is not None]
    if not found:
        return None
    percents = [100 * value for _, value in found]
    bars = go.Bar(
        x=[_STAGE_LABELS.get(stage, stage) for stage, _ in found],
        y=percents,
        text=[f"{percent:.2f}" for percent in percents],
        textposition="outside",
        cliponaxis=False,
        marker={"color": [_DENSE if stage == "dense" else _COMPILED for stage, _ in found]},
        hovertemplate="%{x}: %{y:.2f} %<extra></extra>",
        width=0.55,
    )
    metric = html.escape(report.accuracy.metric)
    return _figure([bars], _axis(showgrid=False), _axis(f"{metric} on test, %", range=[0, 108]))


def _learning_curve(report: Report) -> go.Figure | None:
    if report.recovery is None or not report.recovery.curve:
        return None
    curve = report.recovery.curve
    epochs = [point.epoch for point in curve]
    rates = [point.learning_rate for point in curve]

    def line(name: str, y: list[float], color: str, **options: Any) -> go.Scatter:
        style = {"color": color, "width": 2.5} | options.pop("line", {})
        return go.Scatter(name=name, x=epochs, y=y, mode="lines+markers", line=style, marker={"size": 5}, **options)

    percent_hover = "epoch %{x}: %{y:.2f} %"
    traces = [
        line("test", [100 * p.test for p in curve], _COMPILED, hovertemplate=percent_hover),
        line("validation", [100 * p.validation for p in curve], _ACCENT, hovertemplate=percent_hover),
        go.Scatter(
            name="learning rate",
            x=epochs,
            y=rates,
            yaxis="y2",
            mode="lines",
            line={"color": _MUTED, "width": 1.5, "dash": "dot", "shape": "hv"},
            hovertemplate="epoch %{x}: %{y:.4g}",
        ),
    ]
    figure = _figure(
        traces,
        _axis("epoch"),
        _axis(f"{html.escape(report.accuracy.metric)}, %"),
        yaxis2=_learning_rate_axis(rates),
        hovermode="x unified",
    )
    return figure.update_layout(margin={"r": 64})


def _learning_rate_axis(rates: list[float]) -> dict[str, Any]:
    """Second vertical axis: in decades for a step schedule, from zero for the others."""
    is_step_schedule = 1 < len(set(rates)) <= 8 and min(rates) > 0
    decades = {"type": "log", "exponentformat": "power", "tickmode": "linear", "dtick": 1}
    from_zero = {"rangemode": "tozero", "tickmode": "auto", "nticks": 6}
    placed = _axis("learning rate", overlaying="y", side="right", showgrid=False)
    return placed | (decades if is_step_schedule else from_zero)


def _widths(report: Report) -> go.Figure | None:
    if not report.layers:
        return None
    names = [html.escape(layer.name) for layer in report.layers]
    hover = "%{x}: %{y} filters"
    dense = [layer.shape[0] for layer in report.layers]
    kept = [layer.kept for layer in report.layers]
    traces = [
        go.Bar(name="dense", x=names, y=dense, marker={"color": _DENSE}, hovertemplate=hover),
        go.Bar(name="kept", x=names, y=kept, marker={"color": _COMPILED}, hovertemplate=hover),
    ]
    x = _axis(showgrid=False, tickangle=-40, type="category")
    return _figure(traces, x, _axis("output filters"), barmode="group", bargap=0.3, hovermode="x unified")


def _latency(latency: Latency | None) -> go.Figure | None:
    if latency is None:
        return None
    names = ["median", "p90", "p99"]
    traces = [
        go.Bar(
            name=name,
            x=names,
            y=(values := [percentiles.median, percentiles.p90, percentiles.p99]),
            text=[f"{value:.3g}" for value in values],
            textposition="outside",
            cliponaxis=False,
            marker={"color": color},
            hovertemplate="%{x}: %{y:.4g} ms",
        )
        for name, percentiles, color in (
            ("dense", latency.dense_ms, _DENSE),
            ("compiled", latency.compiled_ms, _COMPILED),
        )
    ]
    top = 1.15 * max(latency.dense_ms.p99, latency.compiled_ms.p99)
    return _figure(traces, _axis(showgrid=False), _axis("milliseconds", range=[0, top]), barmode="group", bargap=0.35)
