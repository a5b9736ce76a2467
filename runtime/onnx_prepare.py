"""What the ONNX exporter of torch can't take as it is, rewritten before it sees the graph."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph

from prunec.passes.graphs import arguments, calls

_NAME = "scaled_dot_product_attention"
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def prepared(exported: ExportedProgram) -> ExportedProgram:
    """A program of the same function that the exporter takes; the given one may be changed."""
    if any(len(arguments(node)["query"].meta["val"].shape) != 4 for node in calls(exported.graph, _NAME)):
        exported = exported.run_decompositions({_ATTENTION: _attention_of_rank_4})
    copy_before_reshapes(exported.graph)
    return exported


def copy_before_reshapes(graph: Graph) -> None:
    """Make memory dense before every reshape; the copies have no trace in ONNX.

    The exporter decomposes and traces the graph, where reshapes become views that fit the strides of that moment,
    and then runs it another way, where kernels of attention leave other strides.
    """
    for node in list(calls(graph, "view", "_unsafe_view", "reshape")):
        source = arguments(node)["self"]
        with graph.inserting_before(node):
            dense = graph.call_function(
                torch.ops.aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
            )
        dense.meta = {"val": source.meta["val"].clone(memory_format=torch.contiguous_format)}
        node.replace_input_with(source, dense)
    graph.lint()


def _attention_of_rank_4(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *a: Any, **k: Any
) -> Any:
    """Attention over (batch, heads, tokens, head_dim): leading axes are merged, missing ones added."""
    if query.ndim == 4:
        return NotImplemented
    tensors = [query, key, value] + ([] if attn_mask is None else [attn_mask])
    leading = torch.broadcast_shapes(*(tensor.shape[:-3] for tensor in tensors))  # type: ignore[no-untyped-call]

    def merged(tensor: Tensor) -> Tensor:
        while tensor.ndim < 3:
            tensor = tensor[None]
        return tensor.expand(*leading, *tensor.shape[-3:]).reshape(math.prod(leading), *tensor.shape[-3:])

    if attn_mask is not None:
        attn_mask = merged(attn_mask)
    result = _ATTENTION(merged(query), merged(key), merged(value), attn_mask, *a, **k)
    return result.reshape(*leading, *query.shape[-3:-1], value.shape[-1])
