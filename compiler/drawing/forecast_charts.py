"""The charts of a forecast's page as Plotly figures."""

import html
from typing import Any

import plotly.graph_objects as go

from prunec.compiler.drawing.chart_parts import ACCENT, COMPILED, DENSE, axis, bar_trace, figure_of
from prunec.compiler.facts.forecast import Forecast
from prunec.compiler.report.forecast_words import layer_name


def forecast_charts(forecast: Forecast) -> dict[str, dict[str, Any]]:
    """Every chart for which the forecast has figures: id -> Plotly figure as plain JSON."""
    figures = {"curve": _curve(forecast), "layers": _layers(forecast), "groups": _groups(forecast)}
    return {name: figure.to_plotly_json() for name, figure in figures.items() if figure is not None}


def _curve(forecast: Forecast) -> go.Figure | None:
    points = [(point.predicted_speedup, point.importance_kept) for point in forecast.curve]
    known = [(speedup, 100 * kept) for speedup, kept in points if kept is not None]
    if not known or forecast.importance_kept is None:
        return None
    hover = "%{x:.3g}x, %{y:.1f} %<extra></extra>"
    style = {"mode": "lines+markers", "line": {"color": COMPILED, "width": 2.5}, "marker": {"size": 6}}
    x, y = ([point[place] for point in known] for place in (0, 1))
    mark = {"mode": "markers", "marker": {"color": ACCENT, "size": 13, "symbol": "diamond"}}
    planned = [forecast.predicted_speedup], [100 * forecast.importance_kept]
    traces = [
        go.Scatter(name="possible", x=x, y=y, hovertemplate=hover, **style),
        go.Scatter(name="planned", x=planned[0], y=planned[1], hovertemplate=hover, **mark),
    ]
    return figure_of(traces, axis("predicted speed-up"), axis("importance kept, %", rangemode="tozero"))


def _layers(forecast: Forecast) -> go.Figure | None:
    layers = [layer for layer in forecast.layers if layer.dense_ms]
    if not layers:
        return None
    names, hover = [html.escape(layer_name(layer.layer)) for layer in layers], "%{x}: %{y:.3g} ms"
    traces = [
        bar_trace(names, [layer.dense_ms or 0.0 for layer in layers], DENSE, hover, name="dense"),
        bar_trace(names, [layer.pruned_ms or 0.0 for layer in layers], COMPILED, hover, name="pruned"),
    ]
    return _grouped(traces, "predicted milliseconds")


def _groups(forecast: Forecast) -> go.Figure | None:
    names, hover = [html.escape(group.group) for group in forecast.groups], "%{x}: %{y}"
    traces = [
        bar_trace(names, [group.dense for group in forecast.groups], DENSE, hover, name="dense"),
        bar_trace(names, [group.kept for group in forecast.groups], COMPILED, hover, name="kept"),
    ]
    return _grouped(traces, "units") if names else None


def _grouped(traces: list[go.Bar | go.Scatter], title: str) -> go.Figure:
    x = axis(showgrid=False, tickangle=-40, type="category")
    return figure_of(traces, x, axis(title), barmode="group", bargap=0.3, hovermode="x unified")
