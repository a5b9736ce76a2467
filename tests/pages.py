"""Markdown of the pages that measurements write: tables, shares, and the sections of a page that several share."""

import re
from collections.abc import Sequence
from pathlib import Path


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars within cells are escaped."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %"


def write_section(page: Path, name: str, text: str) -> None:
    """Put a text in the place of what stands between ``<!-- name -->`` and ``<!-- end of name -->`` on a page.

    Raises:
        ValueError: The page has no such place, or several.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    place = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    written, count = place.subn(lambda _: f"\n{text.strip()}\n\n", page.read_text())
    if count != 1:
        raise ValueError(f"{page} has {count} places for {name}; expected one: {begin.strip()} ... {end}")
    page.write_text(written)
