"""Tensors that are made from sizes alone; their axes get atoms, which follow whatever they meet."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Label, Ties, Value
from prunec.passes.rules.registry import rule


@rule("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "rand", "randn", creates=True)
def create(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """A tensor of a given shape. It depends on no values of the tensor that gives its dtype."""
    is_zero = operator_name(node.target).endswith("zeros")
    sizes = a["size"]
    labels: list[Label] = [ties.fresh(size, is_zero) if isinstance(size, int) and size > 1 else None for size in sizes]
    ties.follow_sizes(node, "size", sizes, labels)
    return tuple(labels)


@rule("scalar_tensor")
def scalar(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """A number, which has no axis."""
    return ()
