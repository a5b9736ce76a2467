"""What ``prunec compile`` and ``prunec build`` print at the end."""

import sys
from pathlib import Path

import typer
from rich.console import Console

from prunec.compiler.report import Report
from prunec.compiler.report_text import report_line, summary_lines, summary_table


def print_report(report: Report, folder: Path, command: str) -> None:
    """The summary, where the bundle is, and the last line for the command that was run."""
    if sys.stdout.isatty():
        Console().print(summary_table(report))
    else:
        for line in summary_lines(report):
            typer.echo(line)
    typer.echo(f"Bundle: {folder}")
    typer.echo(f"Report: {folder / 'report.html'}")
    typer.echo(report_line(report.model_copy(update={"command": command})))
