"""TOML, bounded in size and depth."""

import tomllib
from pathlib import Path
from typing import Any

from prunec.passes.boundary import file_bytes, reading
from prunec.passes.errors import UsageError

#: tomllib takes time by the square of a key's parts: 64 KiB of dots take a second.
_MAX_BYTES = 64 << 10
_MAX_DEPTH = 32


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a TOML file.

    Raises:
        UsageError: The file can't be read, is too large, is not TOML, or is nested too deeply.
    """
    content = file_bytes(path, _MAX_BYTES, str(path), kind=UsageError)
    with reading(str(path), kind=UsageError):
        try:
            document = tomllib.loads(content.decode())
        except ValueError as error:  # not UTF-8 either
            raise UsageError(f"{path} is not valid TOML: {error}.") from error
        _check_depth(document, _MAX_DEPTH)
    return document


def _check_depth(value: object, levels: int) -> None:
    if levels < 0:
        raise ValueError(f"more than {_MAX_DEPTH} tables and lists lie within each other")
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _check_depth(child, levels - 1)
