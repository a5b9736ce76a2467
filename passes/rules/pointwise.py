"""Operators that act element by element: one broadcast rule for all of them."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Label, Ties, Value
from prunec.passes.rules.registry import rule

#: Pointwise in fact, without ATen's pointwise tag.
_UNTAGGED = (
    "hardswish", "hardswish_", "relu6", "relu6_", "relu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_",
    "elu_", "selu", "selu_", "celu_", "silu_", "mish_", "hardsigmoid_", "dropout", "dropout_", "alpha_dropout",
    "feature_dropout", "to", "_to_copy", "type_as", "float", "clone", "contiguous", "detach", "detach_", "alias",
    "lift_fresh_copy", "zeros_like", "ones_like", "full_like", "feature_alpha_dropout", "positive",
)  # fmt: skip


@rule(*_UNTAGGED)
def broadcast(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes align from the right; where two labelled axes meet, their atoms go together."""
    operands = [n for n in node.all_input_nodes if isinstance(ties.values.get(n), tuple)]
    shapes = node.meta["shapes"]
    shape = shapes[0] if isinstance(shapes, list) else shapes
    result: list[Label] = [None] * len(shape)
    for axis in range(-1, -len(shape) - 1, -1):
        size = shape[axis]
        # An operand of size 1 is broadcast over the axis and has no say in it.
        full = [ties.of(n)[axis] for n in operands if _size(n, axis) == size and size != 1]
        reason = f"{operator_name(node.target)} with values that are not tracked"
        for position, label in enumerate(full):
            result[axis] = label if position == 0 else ties.meet(result[axis], label, reason)
        if full:
            _mark_residual(ties, node, result[axis])
    return [tuple(result) for _ in shapes] if isinstance(shapes, list) else tuple(result)


def _size(node: Node, axis: int) -> int:
    shape = node.meta["shapes"]
    return int(shape[axis]) if len(shape) >= -axis else 1


def _mark_residual(ties: Ties, node: Node, label: Label) -> None:
    """A sum of two activations is where branches join: its channels form a residual stream."""
    activations = [n for n in node.all_input_nodes if n.op != "get_attr" and ties.values.get(n)]
    if label is not None and operator_name(node.target).rstrip("_") in ("add", "sub") and len(activations) == 2:
        ties.residual.append(label)
