"""Folders as ``save_pretrained()`` of Hugging Face writes them, as data: what config.json and the index say.

Nothing here builds a network, and no name in the folder is imported.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunec.compiler.project.checkpoint_file import HUB_CONFIG, check_file
from prunec.passes.archives import check_regular, leaves_folder
from prunec.passes.boundary import file_bytes, reading
from prunec.passes.errors import InputError, UnsupportedModelError

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
#: Bytes of a JSON file; labels of 22,000 classes take one million.
_MOST_BYTES = 16 << 20
#: Layers of a network; building more takes time before anything can be compared with the weights.
_MOST_LAYERS = 4096
_LAYERS = re.compile(r"layers|blocks|depth|stages")
_ADAPTER = "adapter_config.json"
_NO_WEIGHTS = (
    "Save the network with save_pretrained(folder): it writes safetensors. Pickled weights (pytorch_model.bin) aren't "
    "taken from such a folder; as a checkpoint of their own they are, with a factory for the network."
)


@dataclass(frozen=True)
class HubFolder:
    """What a folder says of its network.

    Attributes:
        folder: The folder.
        architecture: Name of the network's class.
        model_type: Name of its family, by which transformers finds the class of its configuration.
        config: All of config.json.
        code: Classes in Python files that any part of config.json names: ``file.Class``.
        weights: The files of weights.
    """

    folder: Path
    architecture: str
    model_type: str
    config: dict[str, Any]
    code: tuple[str, ...]
    weights: tuple[Path, ...]


def read_hub_folder(folder: Path) -> HubFolder:
    """Read what a folder of Hugging Face says.

    Raises:
        InputError: A file is missing, damaged or too large, doesn't name its network, or leads out of the folder.
        UnsupportedModelError: The weights are quantised, or those of an adapter.
    """
    config = _json(folder / HUB_CONFIG)
    if (folder / _ADAPTER).exists():
        raise UnsupportedModelError(
            f"{folder} holds an adapter, not a whole network ({_ADAPTER}).",
            hint="Merge it into its network (merge_and_unload() of peft), and save that.",
        )
    entries = list(_entries(config, ""))
    for where, key, value in entries:
        _check_entry(folder / HUB_CONFIG, where, key, value)
    maps = [value for _, key, value in entries if key == "auto_map" and value]
    architectures, kind = config.get("architectures"), config.get("model_type")
    name = architectures[0] if isinstance(architectures, list) and len(architectures) == 1 else None
    if not isinstance(name, str) or not name.isidentifier() or not isinstance(kind, str):
        raise InputError(
            f"{folder / HUB_CONFIG} doesn't say what its network is: expected one class under architectures, and a "
            f"model_type, got {str(architectures)[:100]} and {str(kind)[:100]}.",
            hint="Save the network with save_pretrained() of its transformers class.",
        )
    code = tuple(str(text) for each in maps for text in (each.values() if isinstance(each, dict) else [each]))
    return HubFolder(folder, name, kind, config, code, _weights(folder))


def _json(path: Path) -> dict[str, Any]:
    what = f"The file {path}"
    content = file_bytes(path, _MOST_BYTES, what)
    with reading(what, "JSON"):
        document = json.loads(content)
        if not isinstance(document, dict):
            raise ValueError(f"it holds a {type(document).__name__}, expected an object")
    return document


def _entries(value: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """Every entry of an object and of those in it, with its path and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        path = f"{where}.{key}" if where else str(key)
        yield path, str(key), inner
        yield from _entries(inner, path)


def _check_entry(path: Path, where: str, key: str, value: Any) -> None:
    """Refuse quantised weights, code of strangers that would be fetched, and more layers than any network has."""
    if key == "quantization_config" and value:
        raise UnsupportedModelError(
            f"{path}: the weights are quantised ({key}); prunec prunes and trains floating-point weights.",
            hint="Take the weights that they were made of.",
        )
    if key.endswith("_implementation") and re.search(r"[/:@|]", str(value)):
        raise InputError(f"{path}: {where} names code to fetch, {str(value)[:100]!r}: it isn't run.")
    numbers = value if isinstance(value, list) else [value]
    if _LAYERS.search(key) and any(isinstance(n, int | float) and not abs(n) <= _MOST_LAYERS for n in numbers):
        raise InputError(f"{path}: {where} is {str(value)[:100]}; at most {_MOST_LAYERS} layers are built.")


def _weights(folder: Path) -> tuple[Path, ...]:
    """The files of weights: the one, or those that the index names."""
    names, hint = [_WEIGHTS], _NO_WEIGHTS
    if not (folder / _WEIGHTS).exists() and (folder / _INDEX).exists():
        index = _json(folder / _INDEX).get("weight_map")
        files = index.values() if isinstance(index, dict) else []
        names = sorted({name for name in files if isinstance(name, str)})
        if not names or any(leaves_folder(name) or not name.endswith(".safetensors") for name in names):
            raise InputError(f"{folder / _INDEX} names no files of weights in its folder, or others.")
        hint = f"{_INDEX} names it: fetch all of the folder."
    paths = tuple(folder / name for name in names)
    for path in paths:
        check_regular(path)
        if not path.is_file():
            raise InputError(f"{folder} has no file {path.name}.", hint=hint)
        check_file(path)
    return paths
