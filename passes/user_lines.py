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
        if is_users(code.co_filename):
            text = described(code.co_filename, number, code.co_name)
            return (text, number) if text else None
    return None


def line_of_trace(trace: str) -> str | None:
    """The same of a stack trace as torch.export records it for a node, outermost frame first."""
    for match in reversed(list(_FRAME.finditer(trace))):
        if is_users(match["file"]):
            return described(match["file"], int(match["number"]), match["function"])
    return None


def described(file: str, number: int, function: str) -> str | None:
    """A line of code in words; None where it can't be read."""
    text = linecache.getline(file, number).strip()
    return f"{file}:{number} in {function}(): {text!r}" if text else None


def is_users(file: str) -> bool:
    """Whether a file of Python code belongs neither to torch nor to Python nor to prunec."""
    in_library = file.startswith(_LIBRARY) and not file.startswith(_PACKAGES)
    return not (in_library or file.startswith(("<", _TORCH, _OWN)))
