"""Copies and fingerprints of tensors, by name or within the structure of a network's inputs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.passes.errors import InputError

#: A view may stand for this many bytes, however few are stored.
_FREE_BYTES = 1 << 20
#: Where networks are read and cut, whatever they are trained on.
CPU = torch.device("cpu")
#: Positional and keyword inputs of a network.
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tied tensor stands under each of its names."""
    parameters: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    return parameters | dict(module.named_buffers(remove_duplicate=False))


def with_values(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors some of which have new values; parameters stay parameters, and names of one tensor stay so."""
    new = {id(tensors[name]): like(tensors[name], value.clone()) for name, value in values.items()}
    return {name: new.get(id(tensor), tensor) for name, tensor in tensors.items()}


def like(tensor: Tensor, value: Tensor) -> Tensor:
    """A value as what the tensor is: a parameter that is trained or not, or a buffer."""
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def copied_inputs(inputs: Any, device: torch.device | None = None) -> Any:
    """The same structure with copies of its tensors, on a device."""
    return pytree.tree_map(lambda leaf: copy_of(leaf, device) if isinstance(leaf, Tensor) else leaf, inputs)


def copy_of(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """A copy of a tensor's values, on a device; one without values, on the device "meta", stays there."""
    return tensor.detach().to(tensor.device if device is None or tensor.is_meta else device, copy=True)


def doubled(inputs: Any) -> Any:
    """The same structure with float64 copies of its floating-point tensors and copies of the others."""
    return in_type(inputs, torch.float64)


def in_type(inputs: Any, dtype: torch.dtype) -> Any:
    """The same structure with copies of its tensors, the floating-point ones in a type."""
    return pytree.tree_map(
        lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf,
        copied_inputs(inputs),
    )


def copied(tensors: Mapping[str, Tensor], device: torch.device | None = None) -> dict[str, Tensor]:
    """Copies of tensors by name, on a device; parameters stay parameters, and names of one tensor share one copy."""
    copies: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in copies:
            copies[id(tensor)] = like(tensor, copy_of(tensor, device))
    return {name: copies[id(tensor)] for name, tensor in tensors.items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_stored(content: object, path: Path) -> None:
    """Refuse a file's tensors that stand for many more values than it stores: a copy of one would fill the memory.

    Args:
        content: What was read, in which mappings and sequences may hold themselves.
        path: The file, for the message.

    Raises:
        InputError: There is such a tensor.
    """
    left, seen = [content], set[int]()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list | tuple | set):
            left.extend(value)
        elif isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta:
            asked, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
            if asked > max(stored, _FREE_BYTES):
                raise InputError(
                    f"{path} holds a tensor of shape {list(value.shape)}, {asked:,} bytes; {stored:,} are stored.",
                    hint="Save a copy of it: tensor.contiguous().",
                )
