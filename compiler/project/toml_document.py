"""TOML, bounded in size and depth."""

import re
import tomllib
from pathlib import Path
from typing import Any

from prunec.passes.boundary import file_bytes, reading
from prunec.passes.errors import UsageError

_MAX_BYTES = 64 << 10
_MAX_DEPTH = 32
#: A key of more parts than tables may lie within each other: tomllib takes time by the square of their number.
_LONG_KEY = re.compile(rf"(?:\.[ \t]*[\w\"'-]+[ \t]*){{{_MAX_DEPTH}}}")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables and values of a TOML file.

    Raises:
        UsageError: The file can't be read, is too large, is not TOML, or is nested too deeply.
    """
    content = file_bytes(path, _MAX_BYTES, str(path), kind=UsageError)
    with reading(str(path), kind=UsageError):
        try:
            text = content.decode()
            if _LONG_KEY.search(text):
                raise ValueError(f"a key has more than {_MAX_DEPTH} parts")
            document = tomllib.loads(text)
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
