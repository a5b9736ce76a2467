"""The boundary of prunec towards what others give it: files of bounded size, and one kind of error for all of a kind.

Each kind of input has one reader. What goes wrong within it is a fault of the input: a damaged file raises nearly
anything in the libraries that read it. Imports nothing that is slow to load.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunec.passes.errors import InputError, PrunecError, first_line

#: Characters of a value, or of a foreign message, that an error shows.
_SHOWN = 200
#: What controls a terminal, but for tabs and ends of lines, and what turns the direction of writing -> how it is shown.
_CONTROLS = {
    code: chr(code).encode("unicode_escape").decode()
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\t\n"
}


@contextmanager
def reading(
    what: str, form: str = "", *, hint: str | None = None, kind: type[PrunecError] = InputError
) -> Iterator[None]:
    """Turn whatever goes wrong while an input is read into one error that names it.

    Errors of prunec's own pass, and so does a lack of memory.

    Args:
        what: The input, as a sentence begins with it: "Checkpoint model.pt".
        form: What it is read as: "a NumPy .npz archive".
        hint: Advice on what to try next.
        kind: Class of the error: `InputError` for files, `UsageError` for what the user wrote.

    Raises:
        PrunecError: Something went wrong; it is of ``kind``.
    """
    try:
        yield
    except (PrunecError, MemoryError):
        raise
    except Exception as error:
        read_as = f" as {form}" if form else ""
        raise kind(f"{what} can't be read{read_as}: {reason(error).removesuffix('.')}.", hint=hint) from error


def reason(error: Exception) -> str:
    """Why something can't be read, in a few words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shortened(first_line(error))


def printable(text: str) -> str:
    """A text without characters that control a terminal: names and words out of files may hold any."""
    return text.translate(_CONTROLS)


def shortened(text: str) -> str:
    """A text that a message can show, however long it is."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def file_bytes(path: Path, limit: int, what: str, *, kind: type[PrunecError] = InputError) -> bytes:
    """The content of a regular file of bounded size.

    Args:
        path: The file.
        limit: Bytes that it may have at most.
        what: The file in messages, as a sentence begins with it.
        kind: Class of the errors.

    Raises:
        PrunecError: There is no such file, it is a folder, a pipe or a device, it can't be read, or it is larger; of
            ``kind``.
    """
    with reading(what, kind=kind):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ValueError("it is a folder")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for somebody who writes
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"it has {status.st_size} bytes, and at most {limit} are read")
    return content
