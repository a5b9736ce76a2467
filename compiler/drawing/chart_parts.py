"""What the charts of all pages are made of: colours as CSS variables, axes, bars, and the figure around them."""

from typing import Any

import plotly.graph_objects as go

DENSE, COMPILED, ACCENT, MUTED = "var(--dense)", "var(--compiled)", "var(--accent)", "var(--muted)"


def axis(title: str = "", **options: Any) -> dict[str, Any]:
    """An axis with a title; options are Plotly's own."""
    title_options = {"text": title, "standoff": 10, "font": {"size": 12, "color": MUTED}}
    return {"title": title_options, "gridcolor": "var(--line)", "zeroline": False, "automargin": True} | options


def bar_trace(
    x: list[str], y: list[float], color: str | list[str], hover: str, digits: str = "", **options: Any
) -> go.Bar:
    """Bars; with digits (a format specification) each has its value above it."""
    if digits:
        options |= {"text": [format(value, digits) for value in y], "textposition": "outside", "cliponaxis": False}
    return go.Bar(x=x, y=y, marker={"color": color}, hovertemplate=hover, **options)


def figure_of(traces: list[go.Bar | go.Scatter], x: dict[str, Any], y: dict[str, Any], **layout: Any) -> go.Figure:
    """The figure of some traces on two axes; further layout is Plotly's own."""
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
