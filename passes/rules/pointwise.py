"""Operators that act element by element: one broadcast rule for all of them."""

from functools import cache
from typing import Any

import torch
from torch.fx import Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.labels import Label, Ties, Value, parts, with_zero
from prunec.passes.rules.registry import rule

#: Pointwise in fact, without ATen's pointwise tag.
_UNTAGGED = (
    "hardswish", "hardswish_", "relu6", "relu6_", "relu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_",
    "elu_", "selu", "selu_", "celu_", "silu_", "mish_", "hardsigmoid_", "dropout", "dropout_", "alpha_dropout",
    "feature_dropout", "to", "_to_copy", "float", "clone", "contiguous", "detach", "detach_", "alias",
    "lift_fresh_copy", "zeros_like", "ones_like", "full_like", "feature_alpha_dropout", "positive", "expand_as",
    "masked_fill", "fill", "zero", "rsub", "rrelu", "empty_like", "copy",
)  # fmt: skip
_SUMS = ("add", "sub", "rsub", "maximum", "minimum", "where", "lerp")
_PRODUCTS = ("mul", "multiply")


@rule(*_UNTAGGED)
def broadcast(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes align from the right; where two labelled axes meet, their atoms go together."""
    operands = [n for n in node.all_input_nodes if isinstance(ties.values.get(n), tuple)]
    shapes = node.meta["shapes"]
    shape = shapes[0] if isinstance(shapes, list) else shapes
    result: list[Label] = [None] * len(shape)
    reason = f"{operator_name(node.target)} with values that are not tracked"
    for axis in range(-1, -len(shape) - 1, -1):
        size = shape[axis]
        # An operand of size 1 is broadcast over the axis and has no say in it.
        full = [n for n in operands if _size(n, axis) == size and size != 1]
        labels = [ties.of(n)[axis] for n in full]
        met = labels[0] if labels else None
        for label in labels[1:]:
            met = ties.meet(met, label, reason)
        if met is not None:
            met = with_zero(met, _is_zero(node, a, full, labels))
            _mark_residual(ties, node, met)
        result[axis] = met
    return [tuple(result) for _ in shapes] if isinstance(shapes, list) else tuple(result)


def _size(node: Node, axis: int) -> int:
    shape = node.meta["shapes"]
    return int(shape[axis]) if len(shape) >= -axis else 1


def _is_zero(node: Node, a: dict[str, Any], full: list[Node], labels: list[Label]) -> bool:
    """Whether the result is zero wherever the operands' removed channels are."""
    operator = operator_name(node.target).removesuffix("_")
    zero = [source for source, label in zip(full, labels, strict=True) if label is not None and label.zero]
    if not zero:
        return False
    if operator in _PRODUCTS:
        return True
    if operator in ("div", "true_divide"):
        return a["self"] in zero
    tensors = [n for n in node.all_input_nodes if n.meta.get("shapes") is not None]
    if len(tensors) == 1:
        return _keeps_zero(node)
    # Beside the zero ones there may be conditions, but no operand that is broadcast over the axis.
    values = [n for n in tensors if n.meta.get("dtype") != torch.bool]
    if operator in _SUMS:
        return all(n in zero for n in values) and not any(isinstance(v, int | float) and v for v in _scalars(a))
    return operator == "expand_as" and a["self"] in zero


@rule("type_as")
def type_as(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The other tensor gives its dtype only."""
    return ties.of(a["self"])


def _scalars(a: dict[str, Any]) -> list[Any]:
    return [value for name, value in a.items() if name in ("self", "other", "input", "end")]


def _keeps_zero(node: Node) -> bool:
    """Whether f(0) = 0, tried out on a zero."""
    bound = arguments(node)
    if any(isinstance(v, Node) and v.meta.get("shapes") is None for v in bound.values()):
        return False  # a number that is computed
    scalars = tuple(
        (k, v) for k, v in bound.items() if not isinstance(v, Node) and k not in ("memory_format", "layout")
    )
    return _zero_at_zero(node.target, tuple(map(repr, scalars)), _Call(node, bound))


class _Call:
    """A call to try out, equal to every other, so that results are cached by operator and numbers alone."""

    def __init__(self, node: Node, bound: dict[str, Any]) -> None:
        self.node, self.bound = node, bound

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call)

    def __hash__(self) -> int:
        return 0


@cache
def _zero_at_zero(target: Any, scalars: tuple[str, ...], call: _Call) -> bool:
    source = next(v for v in call.bound.values() if isinstance(v, Node))
    sample = torch.zeros((2,), dtype=source.meta["dtype"] or torch.float32)
    args = [sample if isinstance(v, Node) else v for v in call.node.args]
    kwargs = {k: sample if isinstance(v, Node) else v for k, v in call.node.kwargs.items()}
    if operator_name(target) in ("expand", "expand_as", "full_like", "empty_like", "rrelu"):
        return False
    result = target(*args, **kwargs)
    return isinstance(result, torch.Tensor) and not result.is_complex() and not bool((result != 0).any())


def _mark_residual(ties: Ties, node: Node, label: Label) -> None:
    """A sum of two activations is where branches join: its channels form a residual stream."""
    if operator_name(node.target).rstrip("_") in ("add", "sub"):
        activations = [n for n in node.all_input_nodes if n.op != "get_attr" and ties.values.get(n)]
        if len(activations) == 2:
            ties.residual.extend(channels.atoms for channels in parts(label))
