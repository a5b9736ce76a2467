"""Lines of the user's code: where an operator or an error comes from."""

import linecache
import os
import re
import sysconfig
from pathlib import Path
from traceback import walk_tb

import torch

_TORCH = str(Path(torch.__file__).parent) + os.sep
_OWN = str(Path(__file__).parent) + os.sep
_LIBRARY = sysconfig.get_paths()["stdlib"]
_PACKAGES = sysconfig.get_paths()["purelib"]
_FRAME = re.compile(r'^ *File "(?P<file>.*)", line (?P<number>\d+), in (?P<function>.*)$', re.MULTILINE)


def line_of_error(error: BaseException) -> tuple[str, int] | None:
    """The innermost line of code, as `described` and its number, that belongs neither to torch nor to Python nor to
    prunec; None where there is none.
    """
    for frame, number in reversed(list(walk_tb(error.__traceback__))):
        code = frame.f_code
        if _is_users(code.co_filename):
            text = _described(code.co_filename, number, code.co_name)
            return (text, number) if text else None
    return None


def line_of_trace(trace: str) -> str | None:
    """The same of a stack trace as torch.export records it for a node, outermost frame first."""
    for match in reversed(list(_FRAME.finditer(trace))):
        if _is_users(match["file"]):
            return _described(match["file"], int(match["number"]), match["function"])
    return None


def _described(file: str, number: int, function: str) -> str | None:
    text = linecache.getline(file, number).strip()
    return f"{file}:{number} in {function}(): {text!r}" if text else None


def _is_users(file: str) -> bool:
    in_library = file.startswith(_LIBRARY) and not file.startswith(_PACKAGES)
    return not (in_library or file.startswith(("<", _TORCH, _OWN)))
