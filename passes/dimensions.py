"""Dimensions of a network's inputs that may vary, as torch.export wants to be told of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils import _pytree as pytree

#: The varying dimensions of each input tensor, in the order of `input_tensors`.
DynamicDims = tuple[dict[int, Dim], ...]


def input_tensors(inputs: Any) -> list[Tensor]:
    """The tensors among (args, kwargs), in order."""
    return [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]


def batch_size(tensors: Sequence[Tensor]) -> int:
    """Dimension 0 of the first tensor that has one, 1 where none has."""
    return next((int(tensor.shape[0]) for tensor in tensors if tensor.ndim), 1)


def dynamic_batch(tensors: Sequence[Tensor], batch: Dim) -> DynamicDims:
    """Dimension 0 of every tensor that has as many samples as the first."""
    samples = batch_size(tensors)
    return tuple({0: batch} if t.ndim and t.shape[0] == samples else {} for t in tensors)


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


def batch_symbol(exported: ExportedProgram) -> str | None:
    """Name of the symbol that stands for the batch: the first dimension 0 that varies, None where none does."""
    for value in _input_values(exported):
        batch: Any = value.shape[0] if value.ndim else None
        if _varies(batch):
            return str(batch.node.expr)
    return None


def _varies(size: Any) -> bool:
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


def _input_values(exported: ExportedProgram) -> list[Tensor]:
    inputs = exported.graph_signature.user_inputs
    values = [n.meta.get("val") for n in exported.graph.find_nodes(op="placeholder") if n.name in inputs]
    return [value for value in values if isinstance(value, Tensor)]


def specification(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dims: DynamicDims) -> Any:
    """The argument ``dynamic_shapes`` of ``torch.export.export`` for these inputs of this module."""
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]
    for tensor, varying in zip(input_tensors((args, kwargs)), dims, strict=True):
        if varying:
            shapes[tensor] = varying
    return shapes.dynamic_shapes(module, args, kwargs) if any(dims) else None  # type: ignore[no-untyped-call]
