"""Dimensions of a network's inputs that may vary, as torch.export wants to be told of them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.fx import Node
from torch.utils import _pytree as pytree

from prunec.passes.network_inputs import BATCH, NetworkInput, VaryingSize
from prunec.passes.tensors import Inputs

#: The varying dimensions of each input tensor, in the order of `input_tensors`.
DynamicDims = tuple[dict[int, Dim], ...]


def input_tensors(inputs: Any) -> list[Tensor]:
    """The tensors among (args, kwargs), in order."""
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def batch_size(tensors: Sequence[Tensor]) -> int:
    """Dimension 0 of the first tensor that has one, 1 where none has."""
    return next((int(tensor.shape[0]) for tensor in tensors if tensor.ndim), 1)


def has_samples(leaf: Any, samples: int) -> bool:
    """Whether a part of the inputs is a tensor with so many samples along dimension 0."""
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == samples


def with_samples(inputs: Inputs, samples: int) -> Inputs:
    """Example inputs with so many samples, theirs in turn; what has no batch stays as it is."""
    size = batch_size(input_tensors(inputs))

    def repeated(leaf: Any) -> Any:
        times = -(-samples // max(size, 1))
        return torch.cat([leaf] * times)[:samples] if has_samples(leaf, size) else leaf

    args, kwargs = pytree.tree_map(repeated, inputs)
    return args, kwargs


def dynamic_batch(tensors: Sequence[Tensor], batch: Dim) -> DynamicDims:
    """Dimension 0 of every tensor that has as many samples as the first."""
    samples = batch_size(tensors)
    return tuple({0: batch} if has_samples(t, samples) else {} for t in tensors)


def dynamic_dims(exported: ExportedProgram) -> DynamicDims:
    """The dimensions that vary in an exported program; torch.export finds one that is computed from others anew."""
    batch = batch_symbol(exported)
    dims: dict[str, Dim] = {}

    def dimension(size: Any) -> Any:
        expression = size.node.expr
        if not expression.is_Symbol:
            return Dim.AUTO
        if str(expression) not in dims:
            allowed = exported.range_constraints[expression]
            least, most = int(allowed.lower), int(allowed.upper) if allowed.upper < 2**62 else None
            # torch.export says that sizes start at 2, since it never looks at 0 and 1; both are allowed.
            name = "batch" if str(expression) == batch else str(expression)
            dims[str(expression)] = Dim(name, min=least if least > 2 else None, max=most)
        return dims[str(expression)]

    return tuple(
        {axis: dimension(size) for axis, size in enumerate(value.shape) if _varies(size)}
        for value in _input_values(exported)
    )


def described_inputs(exported: ExportedProgram, tensors: Sequence[Tensor]) -> tuple[NetworkInput, ...]:
    """What an exported program tells of its inputs, of which these tensors are examples; no ranges of values."""
    names = [node.name for node in _input_nodes(exported)]
    dims, samples = dynamic_dims(exported), batch_size(tensors)
    return tuple(map(partial(_described, samples), names, tensors, dims))


def _described(samples: int, name: str, tensor: Tensor, dims: dict[int, Any]) -> NetworkInput:
    has_batch = 0 in dims or (tensor.ndim > 0 and len(tensor) == samples)
    sizes = [
        _varying(dims[axis], f"{name}_{axis}", size) if axis in dims else size for axis, size in enumerate(tensor.shape)
    ]
    dtype = str(tensor.dtype).removeprefix("torch.")
    return NetworkInput(name, tuple(sizes[1:] if has_batch else sizes), dtype, has_batch=has_batch)


def _varying(dim: Any, unnamed: str, example: int) -> VaryingSize:
    """A dimension as torch.export has it; one that it finds anew from others has no name there."""
    if not isinstance(dim, Dim):
        return VaryingSize(unnamed, example, min(1, example))
    name = unnamed if dim.__name__ == BATCH else dim.__name__
    return VaryingSize(name, example, min(dim.min or 1, example), None if _is_unbounded(dim.max) else int(dim.max))


def _is_unbounded(most: Any) -> bool:
    return most is None or not most < 2**31


def named_dims(dims: DynamicDims | None, inputs: Sequence[NetworkInput]) -> DynamicDims | None:
    """Varying dimensions by the names that a description gives them; their ranges stay.

    Raises:
        ValueError: It gives one dimension two names, or two dimensions one.
    """
    names: dict[str, str] = {}
    renamed: dict[str, Dim] = {}
    for varying, each in zip(dims or (), inputs, strict=dims is not None):
        for axis, dim in varying.items():
            if axis in each.varying and isinstance(dim, Dim):
                name = each.varying[axis].name
                if names.setdefault(dim.__name__, name) != name:
                    raise ValueError(f"{names[dim.__name__]} and {name} are one dimension of the network")
                renamed.setdefault(dim.__name__, Dim(name, min=dim.min, max=dim.max))
    if len(set(names.values())) < len(names):
        raise ValueError(f"two dimensions of the network have one name among {', '.join(names.values())}")
    return dims and tuple(
        {axis: renamed.get(getattr(dim, "__name__", ""), dim) for axis, dim in varying.items()} for varying in dims
    )


def batch_symbol(exported: ExportedProgram) -> str | None:
    """Name of the symbol that stands for the batch: the first dimension 0 that varies, None where none does."""
    for value in _input_values(exported):
        batch: Any = value.shape[0] if value.ndim else None
        if _varies(batch):
            return str(batch.node.expr)
    return None


def _varies(size: Any) -> bool:
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


def _input_nodes(exported: ExportedProgram) -> list[Node]:
    """The placeholders of the input tensors, which have the names of the arguments of forward()."""
    inputs, placeholders = exported.graph_signature.user_inputs, exported.graph.find_nodes(op="placeholder")
    return [node for node in placeholders if node.name in inputs and isinstance(node.meta.get("val"), Tensor)]


def _input_values(exported: ExportedProgram) -> list[Tensor]:
    return [node.meta["val"] for node in _input_nodes(exported)]


def specification(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: DynamicDims) -> Any:
    """The argument ``dynamic_shapes`` of ``torch.export.export`` for these inputs of this module."""
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor, varying in zip(input_tensors((args, kwargs)), dims, strict=True):
        if varying:
            shapes[tensor] = varying
    return shapes.dynamic_shapes(module, args, kwargs) if any(dims) else None  # type: ignore[no-untyped-call]
