"""report.html: one self-contained page of a report that loads nothing from anywhere."""

import json

import plotly.offline
from markupsafe import Markup

from prunec.compiler import report_figures
from prunec.compiler.report import Layer, Report
from prunec.compiler.report_charts import charts
from prunec.compiler.report_retraining import retraining_rows
from prunec.compiler.templating import environment


def render_html(report: Report) -> str:
    """The report as a page with inlined Plotly charts; the same report gives the same text.

    Args:
        report: of schema version 1.

    Returns:
        a whole HTML document, about 5 MB (nearly all of it plotly.js).
    """
    pages = environment()
    pages.filters |= {
        "percent": report_figures.percent,
        "megabytes": report_figures.megabytes,
        "si": report_figures.si,
        "us": report_figures.microseconds,
        "shape": lambda shape: report_figures.TIMES.join(map(str, shape)),
        "digest": lambda sha256: sha256[:12],
    }
    found = charts(report)
    latency = report.latency or report.latency_cpu
    return pages.get_template("report.html.jinja").render(
        report=report,
        headline=report_figures.headline(report),
        gates=[(gate, report_figures.gate_words(gate)) for gate in report.gates],
        unknowns=[(reason, [_path_words(p) for p in paths]) for reason, paths in report_figures.unknowns(report)],
        retraining=retraining_rows(report),
        two_four=two_four_words,
        sparse_kernels=sparse_kernel_words,
        batch=latency.batch if latency is not None else 1,
        charts=found,
        charts_json=_script_json(found),
        plotly_js=Markup(plotly.offline.get_plotlyjs()),
    )


def two_four_words(layer: Layer) -> tuple[str, str]:
    """State of a layer's 2:4 sparsity as (kind, words); kind is one of good, bad, plain."""
    sparsity = layer.sparsity
    if sparsity is None:
        return "plain", report_figures.NOT_MEASURED
    if sparsity.valid:
        return "good", "valid"
    return ("bad", sparsity.reason or "eligible, but not 2:4") if sparsity.eligible else ("plain", sparsity.reason)


def sparse_kernel_words(layer: Layer) -> str:
    """What the builder did with sparse kernels for a layer; nothing where it can't carry 2:4."""
    sparsity = layer.sparsity
    if sparsity is None or not sparsity.eligible:
        return ""
    if sparsity.chosen_by_builder:
        return "chosen"
    if sparsity.found_by_builder is None:
        return report_figures.UNKNOWN if sparsity.chosen_by_builder is None else "not chosen"
    return "tried, not chosen" if sparsity.found_by_builder else "not tried"


def _path_words(path: str) -> str:
    """``layers.*.dense_ms`` -> ``layers: dense ms``."""
    return ": ".join(part.replace("_", " ") for part in path.split(".") if part != "*")


def _script_json(value: object) -> Markup:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
