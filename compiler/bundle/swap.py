"""Putting a folder in the place of another, so that one of the two is there at every moment."""

import contextlib
import ctypes
import errno
import os
from pathlib import Path

#: Of ``renameat2`` on Linux: paths are relative to the working directory; the two change places.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
#: What kernels and file systems answer that can't exchange two names.
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


def exchange(first: Path, second: Path, aside: Path) -> None:
    """Let two folders change places.

    In one system call where there is one for that. Elsewhere the second steps ``aside`` first: a crash before the first
    has its place leaves the place empty, until `restore` puts it back.

    Raises:
        OSError: They can't, and are where they were.
    """
    if _exchanged(first, second):
        return
    second.rename(aside)
    try:
        first.rename(second)
    except BaseException:
        restore(second, aside)
        raise
    aside.rename(first)


def restore(path: Path, aside: Path) -> None:
    """Put back what stepped aside, where nothing has taken its place."""
    if aside.exists() and not path.exists():
        aside.rename(path)


def written_through(folder: Path) -> None:
    """Have everything in a folder on the disk before its name changes: a power cut must not leave empty files."""
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some file systems can't, of folders
                os.fsync(file)
        finally:
            os.close(file)


def _exchanged(first: Path, second: Path) -> bool:
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # another system than Linux, or an old C library
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))
