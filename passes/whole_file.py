"""Text files that are written as a whole or not at all. Imports no torch."""

import os
import shlex
from pathlib import Path

from prunec.passes.errors import EnvironmentFailure


def write_whole(path: Path, text: str) -> None:
    """Write a file as a whole or not at all; one that is there is replaced.

    Raises:
        EnvironmentFailure: It can't be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:  # Ctrl-C, too
        part.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> EnvironmentFailure:
    """The error to raise where the operating system refuses to write an output."""
    if not path.parent.is_dir():
        return EnvironmentFailure(
            f"Output {path} cannot be written: there is no folder {path.parent}.",
            hint=f"Create it: mkdir -p {shlex.quote(str(path.parent))}",
        )
    return EnvironmentFailure(
        f"Output {path} cannot be written: {error.strerror or error}.",
        hint="Check the permissions of its folder and the free space, or name another output with -o.",
    )
