"""The report of a bundle in every form."""

from pathlib import Path

from prunec.compiler.bundle.bundle_names import LAYERS, REPORT, REPORT_PAGE
from prunec.compiler.drawing.report_page import render_html
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import layers_csv


def write_report(folder: Path, report: Report) -> None:
    """Write report.json, report.html and layers.csv."""
    (folder / LAYERS).write_text(layers_csv(report.layers), encoding="utf-8")
    (folder / REPORT).write_text(report.to_json(), encoding="utf-8")
    (folder / REPORT_PAGE).write_text(render_html(report), encoding="utf-8")
