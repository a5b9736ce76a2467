"""Printing: tables on a terminal, plain columns elsewhere, JSON on request."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from prunec.compiler.machine.ranks import is_main
from prunec.passes.boundary import printable

if TYPE_CHECKING:
    from pathlib import Path

    from prunec.compiler.report.report import Report


def echo(text: str = "", err: bool = False) -> None:
    """Print text, which may hold words out of files, on standard output or standard error."""
    typer.echo(printable(text), err=err)


def print_json(document: object) -> None:
    """A document, which may be or hold dataclasses, as indented JSON on standard output."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=asdict))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, aligned columns in a pipe."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")  # a name that is cut off is another one
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    echo(title)
    for row in (columns, *rows):
        echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    echo()


def print_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown on standard output."""
    for row in (columns, ["---"] * len(columns), *rows):
        echo(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    echo()


def print_report(report: "Report", folder: "Path", command: str) -> None:
    """Print the end of compile and build: the summary, the place of the bundle, and the last line of the command."""
    from prunec.compiler.report.report_text import report_line, summary_lines, summary_table

    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(summary_table(report))
    else:
        echo("\n".join(summary_lines(report)))
    echo(f"Bundle: {folder}\nReport: {folder / 'report.html'}")
    echo(report_line(report.model_copy(update={"command": command})))


def note(text: str) -> None:
    """A remark on standard error; of several processes only the first makes it."""
    if is_main():
        echo(f"Note: {text}", err=True)
