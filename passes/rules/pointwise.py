"""One broadcast rule for all operators that act element by element."""

from typing import Any

import torch
from torch.fx import Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.labels import Label, Ties, Value, each_output, is_zero, not_tracked, parts, with_zero
from prunec.passes.operators import DROPOUTS
from prunec.passes.rules.registry import rule

#: Operators that are pointwise and lack ATen's tag for it.
_UNTAGGED = (
    "hardswish", "hardswish_", "relu6", "relu6_", "relu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_",
    "elu_", "selu", "selu_", "celu_", "silu_", "mish_", "hardsigmoid_", *DROPOUTS, "dropout_", "to", "_to_copy",
    "float", "clone", "contiguous", "detach", "detach_", "alias", "lift_fresh_copy", "zeros_like", "ones_like",
    "full_like", "positive", "expand_as", "masked_fill", "fill", "zero", "rsub", "rrelu", "empty_like", "copy",
)  # fmt: skip
_SUMS = ("add", "sub", "rsub", "maximum", "minimum", "where", "lerp")
_PRODUCTS = ("mul", "multiply")
#: Operators whose result on zeros doesn't tell what they make of zeros elsewhere.
_NOT_BY_VALUE = ("expand", "expand_as", "full_like", "empty_like", "rrelu")


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
        full = [n for n in operands if _size(n, axis) == size and size != 1]
        labels = [ties.of(n)[axis] for n in full]
        met = ties.meet_all(labels, not_tracked(node))
        if met is not None:
            met = with_zero(met, _is_zero(node, a, full, labels))
            _mark_residual(ties, node, met)
        result[axis] = met
    return each_output(node, result)


def _size(node: Node, axis: int) -> int:
    shape = node.meta["shapes"]
    return int(shape[axis]) if len(shape) >= -axis else 1


def _is_zero(node: Node, a: dict[str, Any], full: list[Node], labels: list[Label]) -> bool:
    """Whether the result is zero wherever the operands' removed channels are."""
    operator = operator_name(node.target).removesuffix("_")
    zero = [source for source, label in zip(full, labels, strict=True) if is_zero(label)]
    if not zero:
        return False
    if operator in _PRODUCTS:
        return True
    if operator in ("div", "true_divide"):
        return a["self"] in zero
    tensors = [n for n in node.all_input_nodes if n.meta.get("shapes") is not None]
    if len(tensors) == 1:
        return _keeps_zero(node)
    # Conditions may stand beside the zero operands, but no operand that is broadcast over the axis.
    values = [n for n in tensors if n.meta.get("dtype") != torch.bool and not _is_number_zero(n)]
    if operator in _SUMS:
        scalars = [a[name] for name in ("self", "other", "input", "end") if isinstance(a.get(name), int | float)]
        return all(n in zero for n in values) and not any(scalars)
    return operator == "expand_as" and a["self"] in zero


def _is_number_zero(node: Node) -> bool:
    return operator_name(node.target) == "scalar_tensor" and arguments(node)["s"] == 0


@rule("type_as")
def type_as(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The other tensor gives its dtype only."""
    return ties.of(a["self"])


#: Answers of `_keeps_zero` by operator, dtype and numbers: a key that keeps no node and no tensor alive.
_ZERO_AT_ZERO: dict[tuple[object, object, str], bool] = {}


def _keeps_zero(node: Node) -> bool:
    """Whether f(0) = 0 for an operator with one operand, tried out on zeros."""
    bound = arguments(node)
    operand = next(value for value in bound.values() if isinstance(value, Node))
    if operator_name(node.target) in _NOT_BY_VALUE or any(
        isinstance(value, Node) and value.meta.get("shapes") is None for value in bound.values()
    ):
        return False
    numbers = {name: value for name, value in bound.items() if not isinstance(value, Node)}
    key = (node.target, operand.meta["dtype"], repr(numbers))
    if key not in _ZERO_AT_ZERO:
        zeros = torch.zeros((2,), dtype=operand.meta["dtype"] or torch.float32)
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda _: zeros)
        result = node.target(*args, **kwargs)  # type: ignore[operator]
        is_real = isinstance(result, torch.Tensor) and not result.is_complex()
        _ZERO_AT_ZERO[key] = is_real and not bool((result != 0).any())
    return _ZERO_AT_ZERO[key]


def _mark_residual(ties: Ties, node: Node, label: Label) -> None:
    """Mark the channels of a sum of two activations, where branches join, as a residual stream."""
    if operator_name(node.target).rstrip("_") in ("add", "sub"):
        activations = [n for n in node.all_input_nodes if n.op != "get_attr" and ties.values.get(n)]
        if len(activations) == 2:
            ties.residual.extend(channels.atoms for channels in parts(label))
