"""Attention as its two products and the softmax between them, so that the products can read grids."""

from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from prunec.passes.base import PassResult
from prunec.passes.graphs import arguments, calls, copied_graph
from prunec.passes.program import Program

_ATEN = torch.ops.aten


def decompose_attention(program: Program) -> PassResult:
    """Write every ``scaled_dot_product_attention`` as products, sum with the mask and softmax.

    Scores are scaled after their product, so that it reads queries and keys as they are. Rows in which a mask leaves
    nothing give 0, as torch has it. Attention with dropout or with fewer heads of keys than of queries stays whole.
    """
    graph = copied_graph(program.graph)
    count = decompose_in(graph)
    return PassResult(program.with_tensors(program.tensors(), graph), count > 0, {"decomposed": count})


def decompose_in(graph: Graph) -> int:
    """As `decompose_attention`, in place; how often there was any to decompose."""
    count = 0
    for node in list(calls(graph, "scaled_dot_product_attention")):
        bound = arguments(node)
        if not (bound["dropout_p"] or bound["enable_gqa"]):
            with graph.inserting_before(node):
                result = _Writer(graph, node).attention(bound)
            node.replace_all_uses_with(result)
            graph.erase_node(node)
            count += 1
    return count


class _Writer:
    """Writes calls with the metadata of the one that they stand for, and their own shapes and types."""

    def __init__(self, graph: Graph, origin: Node) -> None:
        self._graph, self._meta = graph, origin.meta

    def attention(self, bound: dict[str, Any]) -> Node:
        """The node that yields what the attention yields."""
        query, key, value, mask = (bound[name] for name in ("query", "key", "value", "attn_mask"))
        width = query.meta["sample_shapes"][-1]
        scale = bound["scale"] if bound["scale"] is not None else width**-0.5
        transposed = self._call(_ATEN.transpose.int, key, -2, -1)
        scores = self._call(_ATEN.mul.Scalar, self._call(_ATEN.matmul.default, query, transposed), scale)
        if bound["is_causal"]:
            allowed = self._call(_ATEN.tril.default, self._call(_ATEN.ones_like.default, scores))
            mask_out = self._call(_ATEN.eq.Scalar, allowed, 0)
            scores = self._call(_ATEN.masked_fill.Scalar, scores, mask_out, -torch.inf)
        if mask is not None and mask.meta["dtype"] == torch.bool:
            mask_out = self._call(_ATEN.logical_not.default, mask)
            scores = self._call(_ATEN.masked_fill.Scalar, scores, mask_out, -torch.inf)
        elif mask is not None:
            scores = self._call(_ATEN.add.Tensor, scores, mask)
        weights = self._call(_ATEN.softmax.int, scores, -1)
        if mask is not None:
            nothing = self._call(_ATEN.all.dim, self._call(_ATEN.eq.Scalar, scores, -torch.inf), -1, True)
            weights = self._call(_ATEN.masked_fill.Scalar, weights, nothing, 0.0)
        return self._call(_ATEN.matmul.default, weights, value)

    def _call(self, operator: Any, *args: Any) -> Node:
        node = self._graph.call_function(operator, args)
        results = {key: operator(*_of_shapes(args, key)) for key in ("shapes", "sample_shapes")}
        shapes = {key: tuple(result.shape) for key, result in results.items()}
        node.meta = {**self._meta, **shapes, "dtype": results["shapes"].dtype}
        return node


def _of_shapes(args: tuple[Any, ...], key: str) -> Any:
    """Arguments with tensors in place of nodes that have their types, and the shapes in this entry of their metadata.

    They hold one value each, since sizes that vary stand there as large primes.
    """
    return map_arg(args, lambda n: torch.empty((), dtype=n.meta["dtype"], device="meta").expand(n.meta[key]))
