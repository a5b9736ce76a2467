"""Archives of torch.export that were made on a GPU, as if they had been made on the CPU, where prunec reads networks.

torch.export puts every tensor back on the device that it came from, and fails on a machine that has no such device.
Records are read by torch's own reader, as in `prunec.passes.pt2_archive`: what is checked there is what is copied here.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

SAMPLE_INPUTS = "data/sample_inputs/model.pt"
#: Configurations of the parts of tensors, by the folder of the parts.
TENSOR_CONFIGS = {
    "data/weights/": "data/weights/model_weights_config.json",
    "data/constants/": "data/constants/model_constants_config.json",
}
_DEVICE_KEYS = {"type", "index"}
#: Devices that any machine has.
_EVERYWHERE = ("cpu", "meta")
_CPU = {"type": "cpu", "index": None}


def on_cpu(path: str, *, trust: bool) -> str | io.BytesIO:
    """What to read in an archive's place: itself, or a copy in memory with every device the CPU where it names another.

    Archives of PyTorch 2.7 and earlier, and what is pickled in an archive besides its example inputs, stay as they are.

    Args:
        path: The archive, which `prunec.passes.pt2_archive.check_plain` has passed, or which is trusted.
        trust: Whether its example inputs may hold pickled objects.
    """
    try:
        reader = torch._C.PyTorchFileReader(path)
    except RuntimeError:  # of an earlier form, which torch.export reads by other means, or refuses
        return path
    names = reader.get_all_records()
    documents = {name: reader.get_record(name) for name in names if _names_devices(name)}
    moved = {name: text for name, data in documents.items() if (text := _moved_document(data)) is not None}
    return _copy(reader, moved, trust) if moved else path


def _names_devices(name: str) -> bool:
    return name in TENSOR_CONFIGS.values() or (name.startswith("models/") and name.endswith(".json"))


def _moved_document(data: bytes) -> bytes | None:
    """A document with every device the CPU; None where it names no other."""
    document = json.loads(data)
    moved = _moved(document)
    return None if moved == document else json.dumps(moved).encode()


def _moved(value: Any) -> Any:
    if isinstance(value, list):
        return [_moved(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == _DEVICE_KEYS and isinstance(value["type"], str) and value["type"] not in _EVERYWHERE:
        return _CPU
    return {key: _moved(each) for key, each in value.items()}


def _copy(reader: Any, documents: Mapping[str, bytes], trust: bool) -> io.BytesIO:
    """A copy of an archive with other documents, and with its example inputs on the CPU."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for name in reader.get_all_records():
            data = documents.get(name) or reader.get_record(name)
            if name == SAMPLE_INPUTS and data:
                data = _samples_on_cpu(data, trust)
            archive.writestr(f"archive/{name}", data)
    copy.seek(0)
    return copy


def _samples_on_cpu(data: bytes, trust: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.load(io.BytesIO(data), map_location="cpu", weights_only=not trust), buffer)
    return buffer.getvalue()
