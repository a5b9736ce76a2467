"""Figures that plug-ins tell, in the plain values that report.json has a form for."""

import json
from collections.abc import Mapping
from typing import Any

from prunec.passes.unknown import Unknown

#: Depth of the tables and lists in a figure: beyond any use, and within what readers of JSON follow.
_MAX_DEPTH = 32


def plain_figures(figures: Mapping[Any, object]) -> dict[str, Any]:
    """Figures by name, where scalars of NumPy and torch are plain numbers; what JSON has no form for is `Unknown`."""
    return {_text(name): _plain(value, _MAX_DEPTH) for name, value in figures.items()}


def _plain(value: object, depth: int) -> Any:
    if isinstance(value, Unknown):
        return Unknown(_text(value.reason))
    if isinstance(value, Mapping | list | tuple) and depth:
        if isinstance(value, Mapping):
            return {_text(key): _plain(child, depth - 1) for key, child in value.items()}
        return [_plain(child, depth - 1) for child in value]
    return _plain_scalar(value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value)


def _plain_scalar(scalar: object) -> Any:
    if scalar is None:
        return Unknown("nothing was told.")
    what = str(scalar) if isinstance(scalar, float) else f"of type {type(scalar).__name__}"
    no_form = Unknown(f"the figure is {what}, which JSON has no form for.")
    if not isinstance(scalar, bool | int | float | str):
        return no_form
    try:
        text = json.dumps(scalar, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:  # not finite, too many digits, or half a character
        return no_form
    return json.loads(text)


def _text(value: object) -> str:
    """Text that a file can hold."""
    return str(value).encode(errors="backslashreplace").decode()
