"""Archives of torch.export that were made on a GPU, as if they had been made on the CPU, where prunec reads networks.

torch.export puts every tensor back on the device that it came from, and fails on a machine that has no such device.
"""

import io
import json
import re
import zipfile
from typing import Any

import torch

SAMPLE_INPUTS = "data/sample_inputs/model.pt"
#: A device in a document of an archive, which names it by a type and a number.
_DEVICE = re.compile(rb'"type"\s*:\s*"(\w+)"\s*,\s*"index"')
_DEVICE_KEYS = {"type", "index"}
#: Devices that any machine has.
_EVERYWHERE = {b"cpu", b"meta"}
_CPU = {"type": "cpu", "index": None}


def on_cpu(path: str, *, trust: bool) -> str | io.BytesIO:
    """What to read in an archive's place: itself, or a copy in memory with every device the CPU where it names another.

    Args:
        path: The archive, whose members `prunec.passes.pt2_archive.check_plain` has passed, or which is trusted.
        trust: Whether its example inputs may hold pickled objects.
    """
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        documents = {name: archive.read(name) for name in archive.namelist() if name.endswith(".json")}
        elsewhere = {name for name, text in documents.items() if set(_DEVICE.findall(text)) - _EVERYWHERE}
        if not elsewhere:
            return path
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as moved:
            for name in archive.namelist():
                data = documents.get(name) or archive.read(name)
                if name in elsewhere:
                    data = json.dumps(_moved(json.loads(data))).encode()
                elif name.endswith(SAMPLE_INPUTS) and data:
                    data = _moved_samples(data, trust)
                moved.writestr(name, data)
    copy.seek(0)
    return copy


def _moved(value: Any) -> Any:
    if isinstance(value, list):
        return [_moved(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == _DEVICE_KEYS and str(value["type"]).encode() not in _EVERYWHERE:
        return _CPU
    return {key: _moved(each) for key, each in value.items()}


def _moved_samples(data: bytes, trust: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.load(io.BytesIO(data), map_location="cpu", weights_only=not trust), buffer)
    return buffer.getvalue()
