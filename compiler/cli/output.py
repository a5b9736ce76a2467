"""Printing: tables on a terminal, plain columns elsewhere, JSON on request."""

import json
import sys
from collections.abc import Sequence

import typer

from prunec.compiler.ranks import is_main


def print_json(document: object) -> None:
    """A document as indented JSON on standard output."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, aligned columns in a pipe."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    typer.echo(title)
    for row in (columns, *rows):
        typer.echo("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo()


def note(text: str) -> None:
    """A remark on standard error; of several processes only the first makes it."""
    if is_main():
        typer.echo(f"Note: {text}", err=True)
