"""The page report.html, which is self-contained and loads nothing from anywhere."""

from functools import cache

import jinja2
import plotly.offline
from markupsafe import Markup

from prunec.compiler.drawing.report_charts import charts
from prunec.compiler.drawing.templating import environment, script_json
from prunec.compiler.report import headline_figures
from prunec.compiler.report.cost_words import cost_rows
from prunec.compiler.report.engine_facts import latency_request
from prunec.compiler.report.layer_choice_words import (
    error_words,
    layer_choice,
    order_words,
    precision_title,
    trial_rows,
)
from prunec.compiler.report.ledger_words import ledger_rows
from prunec.compiler.report.low_rank_words import low_rank_rows
from prunec.compiler.report.masking_words import masking_rows
from prunec.compiler.report.network_parts import LayerPart
from prunec.compiler.report.precision_words import precision_rows
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import extension_rows, method_rows
from prunec.passes.two_four_words import two_four_state
from prunec.passes.unknown import known


def render_html(report: Report) -> str:
    """The report as an HTML document of about 5 MB, nearly all of it plotly.js; the same report gives the same text."""
    figures = charts(report)
    page = _templates().get_template("report.html.jinja")
    return page.render(
        report=report,
        headline=headline_figures.headline(report),
        gates=[(gate, headline_figures.gate_words(gate)) for gate in report.gates],
        unknowns=[(reason, [_path_words(p) for p in paths]) for reason, paths in headline_figures.unknowns(report)],
        retraining=headline_figures.retraining_rows(report),
        costs=cost_rows(report),
        calibration=known(report.calibration),
        masking=[*low_rank_rows(report), *masking_rows(report)],
        precisions=precision_rows(report),
        precision=precision_title(report),
        choice=layer_choice(report),
        ledger=ledger_rows(report),
        methods=method_rows(report),
        extensions=extension_rows(report),
        warnings=known(report.warnings) or (),
        two_four=two_four_words,
        sparse_kernels=sparse_kernel_words,
        batch=latency_request(report).batch,
        charts=figures,
        charts_json=script_json(figures),
        plotly_js=Markup(plotly.offline.get_plotlyjs()),
    )


@cache
def _templates() -> jinja2.Environment:
    """The templates with the filters of this page."""
    templates = environment()
    templates.filters |= {
        "percent": headline_figures.percent,
        "megabytes": headline_figures.megabytes,
        "si": headline_figures.si,
        "us": headline_figures.microseconds,
        "predicted_us": headline_figures.predicted_microseconds,
        "known": known,
        "shape": lambda shape: headline_figures.TIMES.join(map(str, shape)),
        "alone": error_words,
        "by_layer": lambda choice: {each.layer: each for each in choice.sensitivities},
        "trials": trial_rows,
        "order": order_words,
        "digest": lambda sha256: sha256[:12],
    }
    return templates


def two_four_words(layer: LayerPart) -> tuple[str, str]:
    """State of a layer's 2:4 sparsity as (kind, words); kind is "good" or "plain"."""
    sparsity = known(layer.sparsity)
    if layer.removed_with is not None:
        return "plain", f"removed with the branch {layer.removed_with}"
    if layer.rank is not None:
        return "plain", f"decomposed, of rank {layer.rank}"
    if sparsity is None:
        return "plain", headline_figures.NOT_MEASURED
    state = two_four_state(sparsity.eligible, sparsity.valid)
    return ("good" if sparsity.valid else "plain"), f"{state}{': ' if sparsity.reason else ''}{sparsity.reason}"


def sparse_kernel_words(layer: LayerPart) -> str:
    """Words on the builder's use of sparse kernels for a layer; none where it can't carry 2:4."""
    sparsity = known(layer.sparsity)
    if sparsity is None or not sparsity.eligible:
        return ""
    tried, chosen = known(sparsity.found_by_builder), known(sparsity.chosen_by_builder)
    if chosen:
        return "chosen"
    if tried is None:
        return headline_figures.UNKNOWN if chosen is None else "not chosen"
    return "tried, not chosen" if tried else "not tried"


def _path_words(path: str) -> str:
    """``layers.*.dense_ms`` -> ``layers: dense ms``."""
    return ": ".join(part.replace("_", " ") for part in path.split(".") if part != "*")
