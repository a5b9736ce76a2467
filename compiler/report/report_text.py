"""A report as text: terminal summary, layers.csv, and the last line of a compile."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from prunec.compiler.pipeline.own_steps import ACCURACY_STAGES
from prunec.compiler.report.last_line import result_line
from prunec.passes.boundary import printable
from prunec.passes.two_four_words import two_four_words
from prunec.passes.unknown import Unknown, known

if TYPE_CHECKING:
    from prunec.compiler.report.network_parts import LayerPart
    from prunec.compiler.report.report import Report

_ASCII = str.maketrans(
    {"\u00d7": "x", "\u00b1": "+-", "→": "->", "≤": "<=", "≥": ">="}
)  # for terminals of any character set


def report_line(report: "Report") -> str:
    """`result_line` of a compile: headline figures, then every gate against its limit."""
    from prunec.compiler.report import headline_figures as figures

    words = [f"MACs {report.macs.speedup:.2f}x"]
    if (latency := figures.measured_latency(report)) is not None:
        low, high = latency[0].speedup_interval
        place = "measured" if known(report.latency) is not None else "measured on this CPU"
        words.append(f"{place} {latency[0].speedup:.2f}x [{low:.2f}, {high:.2f}]")
    gated = any(gate.name == "max_drop_points" for gate in report.gates)
    if not gated and (lost := figures.accuracy_lost_points(report)) is not None:
        words.append(f"accuracy lost {lost:.2f} points")
    if not isinstance(states := figures.two_four_states(report), Unknown):
        words.append(two_four_words(states))
    for gate in report.gates:
        verdict = "" if gate.verdict == "passed" else f" ({gate.verdict})"
        words.append(figures.gate_words(gate).translate(_ASCII) + verdict)
    return result_line(report.passed, words, report.command, known(report.warnings) or ())


def summary_rows(report: "Report") -> list[tuple[str, str]]:
    """Label and value of every line of the terminal summary."""
    from prunec.compiler.report import headline_figures as figures
    from prunec.compiler.report.cost_words import cost_rows
    from prunec.compiler.report.low_rank_words import low_rank_rows
    from prunec.compiler.report.masking_words import masking_rows
    from prunec.compiler.report.precision_words import precision_rows

    rows = [("Target", report.target), ("Status", f"{report.status} (exit code {report.exit_code})")]
    rows += [
        (figure.label, f"{figure.value} ({figure.detail})" if figure.detail else figure.value)
        for figure in figures.headline(report)
    ]
    rows += [
        (f"Accuracy, {stage}", figures.percent(accuracy))
        for stage in ACCURACY_STAGES
        if (accuracy := known(getattr(report.accuracy, stage))) is not None
    ]
    rows += precision_rows(report)
    rows += cost_rows(report)
    rows += masking_rows(report)
    rows += figures.depth_rows(report)
    rows += low_rank_rows(report)
    rows += figures.retraining_rows(report)
    if (engine := known(report.engine)) is not None:
        place = "ran on the device" if engine.run_on_device else "not run on the device"
        rows.append(("Engine", f"{engine.path}, {engine.kind}, {place}"))
    rows += method_rows(report)
    rows += extension_rows(report)
    rows += [(f"Gate {gate.verdict}", figures.gate_words(gate)) for gate in report.gates]
    rows += [("But", warning) for warning in known(report.warnings) or ()]
    rows += [("Not known", f"{', '.join(paths)}: {reason}") for reason, paths in figures.unknowns(report)]
    return [(label, value.translate(_ASCII)) for label, value in rows]


def method_rows(report: "Report") -> list[tuple[str, str]]:
    """The groups of compression, and the papers, a line for each."""
    groups = known(report.compression_groups) or ()
    rows = [("Compression", ", ".join(groups))] if groups else []
    return rows + [
        (f"After ({source.name})", source.paper + (f"; {source.reading}" if source.reading else ""))
        for source in known(report.sources) or ()
    ]


def extension_rows(report: "Report") -> list[tuple[str, str]]:
    """The figures of plug-ins, a line for each."""
    rows = []
    for name, figures in report.extensions.items():
        rows.append((name, ", ".join(f"{key} {_figure_words(value)}" for key, value in figures.items())))
    return rows


def _figure_words(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_figure_words(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_figure_words, value)) + "]"
    return "not known" if isinstance(value, Unknown) else f"{value:.6g}" if isinstance(value, float) else str(value)


def summary_table(report: "Report") -> Table:
    """The terminal summary as a Rich table, for a TTY."""
    table = Table(show_header=False, title=f"prunec {report.target}", title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in summary_rows(report):
        status = "bold green" if report.passed else "bold red"
        style = {"Status": status, "Gate failed": "red", "But": "yellow", "Not known": "dim"}.get(label, "")
        table.add_row(label, Text(printable(value), style=style))
    return table


def summary_lines(report: "Report") -> list[str]:
    """The terminal summary as plain lines, for logs and pipes."""
    rows = summary_rows(report)
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {value}" for label, value in rows]


def layers_csv(layers: "Sequence[LayerPart]") -> str:
    """Text of layers.csv: one row per layer; an empty cell is a null of report.json, shapes are joined with ``x``."""
    from prunec.compiler.report.network_parts import LayerPart, LayerSparsityPart

    columns: list[str] = []
    for name in LayerPart.model_fields:
        columns += LayerSparsityPart.model_fields if name == "sparsity" else [name]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_layer_row(layer) for layer in layers)
    return text.getvalue()


def _layer_row(layer: "LayerPart") -> dict[str, object]:
    row = layer.model_dump(mode="json")
    row |= row.pop("sparsity") or {}
    row |= {name: "x".join(map(str, row[name])) for name in ("shape", "compiled_shape")}
    row["onnx_nodes"] = " ".join(layer.onnx_nodes)
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in row.items()}
