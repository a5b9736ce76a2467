"""What a ``.pt2`` of prunec holds beside the network, as JSON: masks, example inputs, names. Nothing is pickled."""

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.boundary import shortened
from prunec.passes.errors import UsageError
from prunec.passes.patterns.pattern import Pattern
from prunec.passes.pt2_archive import is_plain_structure
from prunec.passes.tensors import Inputs

#: Attributes of a program that its file lists.
LISTS = ("lost_in_capture", "dropped", "constants", "rewritten_by")


def write_note(masks: Mapping[str, Tensor], inputs: Inputs, others: Mapping[str, Any]) -> str:
    """The note of a program: its masks by parameter name, example inputs, and plain values such as the `LISTS`."""
    leaves, structure = pytree.tree_flatten(inputs)
    packed = {
        name: {"shape": list(mask.shape), "bits": np.packbits(mask.cpu().numpy()).tobytes().hex()}
        for name, mask in masks.items()
    }
    example = {"structure": pytree.treespec_dumps(structure), "leaves": list(map(_written, leaves))}
    return json.dumps({"masks": packed, "inputs": example, **others})


def read_masks(note: Mapping[str, Any]) -> dict[str, Tensor]:
    """The masks in a note.

    Raises:
        ValueError: Shape and bits of one don't fit.
    """
    return {name: _unpacked(mask["shape"], bytes.fromhex(mask["bits"])) for name, mask in note.get("masks", {}).items()}


def read_patterns(note: Mapping[str, Any]) -> dict[str, str]:
    """The names of patterns in a note, by the name of what is masked.

    Raises:
        ValueError: It isn't masked, or there is no such pattern.
    """
    patterns = note.get("patterns", {})
    for name, pattern in patterns.items():
        if name not in note.get("masks", {}):
            raise ValueError(f"it has a pattern for {shortened(name)}, and no mask")
        try:
            Pattern.parse(pattern)
        except (UsageError, TypeError) as error:
            raise ValueError(f"the pattern of {shortened(name)} isn't known") from error
    return dict(patterns)


def read_inputs(note: Mapping[str, Any]) -> Inputs | None:
    """The example inputs in a note; None in the notes of 0.1.0, whose archives hold them pickled.

    Raises:
        ValueError: Their structure isn't known to be plain, or shape and bytes of one don't fit.
    """
    if (example := note.get("inputs")) is None:
        return None
    if not is_plain_structure(example["structure"]):
        raise ValueError("the structure of the example inputs isn't known to be plain")
    structure = pytree.treespec_loads(example["structure"])
    args, kwargs = pytree.tree_unflatten(list(map(_read, example["leaves"])), structure)
    return tuple(args), dict(kwargs)


def _written(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf  # a number, a truth value, text or None: torch.export takes nothing else
    values = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    dtype = str(leaf.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(leaf.shape), "values": base64.b64encode(values).decode()}


def _read(leaf: Any) -> Any:
    if not isinstance(leaf, dict):
        return leaf
    dtype, values = getattr(torch, leaf["dtype"], None), base64.b64decode(leaf["values"], validate=True)
    if not isinstance(dtype, torch.dtype) or math.prod(leaf["shape"]) * dtype.itemsize != len(values):
        raise ValueError("the shape and the bytes of an example input don't fit")
    # A copy, since torch wants memory that it may write to; and it refuses a buffer of no bytes.
    return (torch.frombuffer(bytearray(values), dtype=dtype) if values else torch.empty(0, dtype=dtype)).reshape(
        leaf["shape"]
    )


def _unpacked(shape: list[int], packed: bytes) -> Tensor:
    if (math.prod(shape) + 7) // 8 != len(packed):
        raise ValueError("the shape and the bits of a mask don't fit")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    return torch.from_numpy(bits[: math.prod(shape)].astype(bool).reshape(shape))
