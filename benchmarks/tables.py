"""How benchmarks print: one table, one verdict, and an exit status that says the same."""

from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console
from rich.table import Table


def finish(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], missed: Sequence[str]) -> NoReturn:
    """Print a table and what was missed; exit 0 if nothing was, else 1."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    for line in missed:
        console.print(f"MISSED: {line}", highlight=False)
    console.print("FAILED" if missed else "PASSED")
    raise SystemExit(1 if missed else 0)
