"""Whether files can be written at a place, found out by trying: permissions don't tell it of every file system."""

import shlex
import tempfile
from pathlib import Path

from prunec.passes.errors import EnvironmentFailure, UsageError


def try_folder(folder: Path) -> None:
    """Make a folder in a folder, and remove it.

    Raises:
        OSError: That isn't possible.
    """
    Path(tempfile.mkdtemp(prefix=".prunec.", dir=folder)).rmdir()


def check_folder_can_be_made(folder: Path, what: str) -> None:
    """Refuse a folder that isn't there and can't be made, or that nothing can be written into.

    Args:
        folder: The folder.
        what: Its name in messages, as it was given.

    Raises:
        UsageError: There is something else than a folder at its place.
        EnvironmentFailure: Nothing can be written there.
    """
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)
    if not there.is_dir():
        raise UsageError(f"{what}: {there} is no folder.", hint="Name a folder.")
    _check(there, what)


def check_file_can_be_written(path: Path, what: str) -> None:
    """Refuse a file that can't be written into its folder; arguments and errors are those of a folder."""
    if path.is_dir():
        raise UsageError(f"{what} is a folder.", hint="Name a file.")
    if not path.parent.is_dir():
        raise EnvironmentFailure(
            f"{what} cannot be written: there is no folder {path.parent}.",
            hint=f"Create it: mkdir -p {shlex.quote(str(path.parent))}",
        )
    _check(path.parent, what)


def _check(folder: Path, what: str) -> None:
    try:
        try_folder(folder)
    except OSError as error:
        raise EnvironmentFailure(
            f"{what} cannot be written: nothing can be made in {folder} ({error.strerror or error}).",
            hint="Check the permissions of that folder, or name another place.",
        ) from error
