"""Standard output and error, lent to the user's code, which may close them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


class _Lent:
    """A stream that stays open when it is closed; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def close(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lent_streams(output: TextIO) -> Iterator[None]:
    """Let a stream stand for standard output, and keep that and standard error open, descriptors 1 and 2 too."""
    kept = {number: os.dup(number) for number in (1, 2) if _is_open(number)}
    try:
        with redirect_stdout(cast(TextIO, _Lent(output))), redirect_stderr(cast(TextIO, _Lent(sys.stderr))):
            yield
    finally:
        for number, copy in kept.items():
            with suppress(OSError):  # the code may have closed all descriptors that there are
                if not _is_open(number):
                    os.dup2(copy, number)
                os.close(copy)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
