"""What is looked at in a foreign file before a library reads it: its kind, its declared sizes, the names in it.

Nothing here loads what a file holds. Everything that is refused raises `InputError`.
"""

import stat
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from prunec.passes.errors import InputError, first_line

#: An archive may grow to this many times its size when it is read. Weights don't shrink; label maps shrink this much.
_MOST_GROWTH = 200
#: Growth that is never a burden, in bytes.
_FREE_BYTES = 64 << 20
_PACKED = "No checkpoint or data set is packed like that. Save it again."


def untrusted(path: Path, what: str) -> InputError:
    """The error for a file whose reading could run code of its author; ``what`` names the part of it."""
    return InputError(
        f"{path} holds {what}. Loading such a file can run any code that its author put there.",
        hint="Save the state_dict instead (torch.save(model.state_dict(), ...)) and name a factory; "
        "or, if you trust where the file is from, add --trust-checkpoint.",
    )


def kind_of(path: Path) -> str:
    """What stands at a path, a link followed: "file", "folder", "nothing", or in words what can't be read as a file."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    words = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return words.get(stat.S_IFMT(mode), "a device")


def check_regular(path: Path) -> None:
    """Refuse pipes, sockets and devices, on which a read never ends.

    Raises:
        InputError: The path is one of them.
    """
    if (kind := kind_of(path)) not in ("file", "folder", "nothing"):
        raise InputError(f"{path} is {kind}, not a file.", hint="Give a regular file.")


def check_zip(path: Path) -> None:
    """Refuse a zip archive that would leave its folder, or fill the memory. A file that is no zip archive passes.

    Raises:
        InputError: Its directory can't be read; entries have the same name, lie outside or are links; they share their
            bytes, or grow out of proportion; or the archive isn't the whole file.
    """
    check_regular(path)
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # bad versions and bad names of entries too
        raise InputError(
            f"{path} can't be read: {first_line(error)}.", hint="It may be truncated or corrupt. Copy or save it again."
        ) from error
    for entry in entries:
        if leaves_folder(entry.filename) or stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"{path}: its entry {entry.filename!r} is a link, or lies outside of the archive.")
    name, count = Counter(entry.filename for entry in entries).most_common(1)[0] if entries else ("", 1)
    if count > 1:
        raise InputError(f"{path} has {count} entries of the name {name!r}: which one counts depends on the reader.")
    if comment or (entries and min(entry.header_offset for entry in entries) > 0):
        raise InputError(
            f"{path} holds something in front of or behind its zip archive: what it holds depends on the reader.",
            hint=_PACKED,
        )
    size, stored = path.stat().st_size, sum(entry.compress_size for entry in entries)
    grown = sum(entry.file_size for entry in entries)
    if stored > size:
        raise InputError(f"{path} has {size:,} bytes and entries of {stored:,}, which share their bytes.", hint=_PACKED)
    check_growth(path, grown)


def check_growth(path: Path, grown: int) -> None:
    """Refuse a packed file that would fill the memory: ``grown`` are the bytes that it says it unpacks to.

    Raises:
        InputError: They are out of proportion.
    """
    size = path.stat().st_size
    if grown > max(_FREE_BYTES, _MOST_GROWTH * size):
        raise InputError(
            f"{path} has {size:,} bytes and would grow to {grown:,}: more than {_MOST_GROWTH} times as much.",
            hint=_PACKED,
        )


def leaves_folder(name: str) -> bool:
    """Whether a relative path, as archives and models hold them, could lead out of its folder on any system."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":"
