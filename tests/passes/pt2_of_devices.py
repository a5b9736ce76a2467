"""Archives of torch.export that name another device, and files that are two archives, made of plain ones."""

import io
import re
import struct
import zipfile


def of_device(archive: bytes, device: str) -> bytes:
    """An archive as that of another device would be, but for its example inputs."""
    named, buffer = f'"type": "{device}", "index": 0'.encode(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as copy:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".json"):
                data = re.sub(rb'"type":\s*"cpu",\s*"index":\s*null', named, data)
            copy.writestr(name, data)
    return buffer.getvalue()


def two_archives(by_offset: bytes, by_place: bytes) -> bytes:
    """A file that is the one archive to who believes its end's offset, and the other to who looks in front of the end.

    The first must be the larger one.
    """
    (values, directory), (others, hidden) = (_parted(archive) for archive in (by_offset, by_place))
    size = max(len(directory), len(hidden)) + 64
    whole = values + _padded(directory, size, 0) + others + _padded(hidden, size, len(values) - len(others))
    count = len(_entries(directory))
    return whole + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, size, len(values), 0)


def _parted(archive: bytes) -> tuple[bytes, bytes]:
    """The entries and the directory of an archive, written anew by Python."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    data = buffer.getvalue()
    size, offset = struct.unpack("<II", data[-10:-2])
    return data[:offset], data[offset : offset + size]


def _entries(directory: bytes) -> list[bytes]:
    entries, place = [], 0
    while place < len(directory):
        length = 46 + sum(struct.unpack("<HHH", directory[place + 28 : place + 34]))
        entries.append(directory[place : place + length])
        place += length
    return entries


def _padded(directory: bytes, size: int, moved: int) -> bytes:
    """A directory of a size, by a comment of its last entry, whose entries lie elsewhere."""
    entries = [bytearray(entry) for entry in _entries(directory)]
    for entry in entries:
        struct.pack_into("<I", entry, 42, struct.unpack("<I", entry[42:46])[0] + moved)
    struct.pack_into("<H", entries[-1], 32, size - len(directory))
    return b"".join(map(bytes, entries)) + bytes(size - len(directory))
