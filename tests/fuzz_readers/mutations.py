"""Damage to inputs: to their bytes, and to what is in them, so that it gets past checksums and parsers."""

import copy
import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

#: Random numbers and a whole input -> a damaged one.
Mutate = Callable[[Random, bytes], bytes]

_ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e9, 1e308, -1e-308, float("nan"), float("inf")),
    *("", "x", "1e2", "nan", "../../etc/passwd", "/dev/zero", "\0", "\ud800", "a" * 5000, "0" * 5000, "é" * 50),
    *([], {}, [[]], {"": {}}, [None], [1, "a"], {"a": 1}, [0] * 300),
]
_WORDS = [
    *("1e9", "-1", "0", "1e400", "nan", "inf", "9" * 400, "9" * 5000, "1e-400", "true", "null", "~", "''", '"'),
    *("{", "}", "[", "]", "(", ")", "=", ",", ":", "*a", "&a", "<<: *a", "#", "- ", "\n", "\t", "\0", "\ufeff", "é"),
    *("\u0661", "[" * 2000, "{a=" * 200, "repeat{n=1000000000}(", "rest(1):", "+60", "k", "/0", "..", "a." * 3000),
    *("2025-02-30", "0x_", "1:60:60"),
]
_TOKEN = re.compile(r"[-+]?\d[\d.eE+-]*|\w+|\s+|.", re.S)


def of_bytes(random: Random, content: bytes) -> bytes:
    """Flipped bits, overwritten, inserted, removed and repeated bytes, and truncation; a few of them at once."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        at, length = random.randrange(len(data) + 1), random.choice((1, 2, 4, 8, 64))
        kind = random.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[at : at + length] = random.choice((b"\xff", b"\0", b"\x80", b"\x7f")) * length
        elif kind == 2:
            data[at:at] = random.randbytes(length)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            del data[at:]
        else:
            data[at:at] = data[at : at + length] * random.choice((1, 2, 50))
    return bytes(data)


def of_text(random: Random, content: bytes) -> bytes:
    """Other numbers, words and brackets; lines that are missing, twice, or elsewhere; now and then other bytes."""
    if random.random() < 0.15:
        return of_bytes(random, content)
    text = content.decode()
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        lines = text.splitlines(keepends=True) if random.random() < 0.25 else _TOKEN.findall(text)
        at = random.randrange(len(lines) + 1)
        kind = random.randrange(5)
        if kind == 0:
            lines[at : at + 1] = [random.choice(_WORDS)]
        elif kind == 1:
            lines[at:at] = [random.choice(_WORDS)]
        elif kind == 2:
            del lines[at : at + random.choice((1, 2, 8))]
        elif kind == 3:
            lines[at:at] = lines[at : at + 1] * random.choice((1, 2, 100))
        else:
            lines[at : at + 1] = [random.choice(lines or ["x"])]
        text = "".join(lines)
    return text.encode(errors="surrogatepass")


def of_json(random: Random, content: bytes) -> bytes:
    """Other values, types, names and numbers of values anywhere in a document; now and then other bytes."""
    if random.random() < 0.15:
        return of_bytes(random, content)
    document = json.loads(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = list(_places(document))
        if not places:
            break
        _change(random, *random.choice(places))
    return json.dumps(document, indent=random.choice((None, 2))).encode()


def _places(value: Any) -> Any:
    """Every container below a value with each of its keys."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _change(random: Random, container: Any, key: Any) -> None:
    kind, value = random.randrange(6), container[key]
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[random.choice(("x", "", f"{key} ", "../x", "9" * 5000))] = container.pop(key)
    elif kind == 2 and isinstance(container, list):
        container.insert(key, value)
    elif kind == 3 and isinstance(value, int | float) and not isinstance(value, bool):
        container[key] = random.choice((-value, value + 1, value * 1e9, value / 3, 1 << 40))
    elif kind == 4 and isinstance(value, str):
        container[key] = random.choice((value[1:], value * 2, value.upper(), value + "\n", value[::-1]))
    else:
        container[key] = copy.deepcopy(random.choice(_ODD))  # a list of them would come to hold itself


def of_zip(members: dict[str, Mutate], keep: tuple[str, ...] = ()) -> Mutate:
    """Damage to one member of a zip archive, whose checksum is right again; to the list of members; or to bytes.

    Args:
        members: The end of a member's name -> how it is damaged; by bytes where none fits.
        keep: Ends of names of members that stay as they are.
    """

    def mutate(random: Random, content: bytes) -> bytes:
        if random.random() < 0.2:
            return of_bytes(random, content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [(name, archive.read(name)) for name in archive.namelist()]
        changeable = [index for index, (name, _) in enumerate(entries) if not name.endswith(keep or ("\0",))]
        at = random.choice(changeable)
        name, data = entries[at]
        kind = random.randrange(12)
        if kind == 0:
            del entries[at]
        elif kind == 1:
            entries[at] = (random.choice(("x", f"{name}x", f"../{name}", f"/{name}", name[:-1], "é", "")) or "y", data)
        elif kind == 2:
            entries[at] = (name, random.choice(entries)[1])
        else:
            how = next((how for end, how in members.items() if name.endswith(end)), of_bytes)
            entries[at] = (name, how(random, data))
        return zipped(entries)

    return mutate


def zipped(entries: list[tuple[str, bytes]]) -> bytes:
    """A zip archive, not compressed, as torch writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries:
            with warnings.catch_warnings(action="ignore"):  # a name that stands twice is one of the damages
                archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def of_safetensors(random: Random, content: bytes) -> bytes:
    """Damage to the header, whose length is right again, or to bytes."""
    if random.random() < 0.3:
        return of_bytes(random, content)
    length = struct.unpack("<Q", content[:8])[0]
    header = of_json(random, content[8 : 8 + length])
    stated = random.choice((len(header), len(header), len(header), length, 2**63, 0))
    return struct.pack("<Q", stated) + header + content[8 + length :]


def of_protobuf(random: Random, content: bytes) -> bytes:
    """Other values of fields anywhere in an ONNX model, fields that are missing or twice, or other bytes."""
    import onnx

    if random.random() < 0.3:
        return of_bytes(random, content)
    model = onnx.ModelProto.FromString(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        message: Any = model
        while True:
            fields = message.ListFields()
            if not fields:
                break
            field, value = random.choice(fields)
            if field.message_type is None or random.random() < 0.15:
                _change_field(random, message, field, value)
                break
            message = random.choice(value) if field.is_repeated else value
    return bytes(model.SerializeToString())


def _change_field(random: Random, message: Any, field: Any, value: Any) -> None:
    kind = random.randrange(3)
    if kind == 0:
        message.ClearField(field.name)
    elif kind == 1 and field.is_repeated and len(value):
        value.extend([value[random.randrange(len(value))]] * random.choice((1, 3)))
    elif field.message_type is None:
        old = value[0] if field.is_repeated else value
        odd = {
            int: (0, 1, -1, 7, 2**31 - 1, -(2**31)),
            float: (0.0, -1.0, 3e38, float("nan")),
            str: ("", "x", "../x", "Conv", "Relu", "MatMul", "é" * 100),
            bytes: (b"", b"\xff", b"../x", bytes(old)[:-1] if isinstance(old, bytes) else b""),
        }[type(old)]
        if field.is_repeated:
            value[random.randrange(len(value))] = random.choice(odd)
        elif field.enum_type is None:
            setattr(message, field.name, random.choice(odd))
