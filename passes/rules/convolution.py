"""Convolutions, linear layers and PReLU: a weight's dimension 0 is the output's channels, dimension 1 the input's."""

from typing import Any

from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Label, Ties, Value
from prunec.passes.rules.registry import rule

_INTO_OPAQUE = "the input's channels are not tracked here ({operator})"
#: Operators whose output is zero where their input is, and nothing but the input otherwise.
_RESHAPES = frozenset((
    "permute", "transpose", "t", "numpy_T", "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "slice",
    "contiguous", "clone", "to", "_to_copy", "detach", "alias", "neg",
))  # fmt: skip


@rule("conv1d", "conv2d", "conv3d")
def convolution(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Weight (K, C / groups, ...); channels are the axis before the spatial ones, with or without a batch."""
    channels, weight = _channels(ties, a), ties.of(a["weight"])
    _fix_kernel(ties, weight)
    if a["groups"] == 1:
        _sum_over(ties, node, a, channels, weight[1])
        filters: Label = weight[0]
    else:
        filters = _grouped(ties, node, a, channels, weight)
    _bias(ties, a, filters)
    return _output(node, weight, filters)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Weight (C, K / groups, ...); grouped ones stay whole."""
    channels, weight = _channels(ties, a), ties.of(a["weight"])
    _fix_kernel(ties, weight)
    if a["groups"] != 1:
        ties.freeze(channels, "grouped transposed convolution")
        ties.freeze_value(weight, "grouped transposed convolution")
        _bias(ties, a, None)
        return _output(node, weight, None)
    _sum_over(ties, node, a, channels, weight[0])
    _bias(ties, a, weight[1])
    return _output(node, weight, weight[1])


@rule("linear")
def linear(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Weight (out, in), or (in,) for one output without an axis; features are the last axis, the others pass."""
    value, weight = ties.of(a["input"]), ties.of(a["weight"])
    _sum_over(ties, node, a, value[-1], weight[-1])
    if len(weight) == 1:
        return value[:-1]
    _bias(ties, a, weight[0])
    return (*value[:-1], weight[0])


@rule("prelu")
def prelu(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Its slopes, where there is more than one, belong to axis 1."""
    value, slopes = ties.of(a["self"]), ties.of(a["weight"])[0]
    if slopes is None:
        return value
    return (value[0], ties.meet(value[1], slopes, "prelu over channels that are not tracked"), *value[2:])


def _grouped(ties: Ties, node: Node, a: dict[str, Any], channels: Label, weight: tuple[Label, ...]) -> Label:
    """Grouped convolution: remove whole groups, or the same index in every group, whichever leaves more choices."""
    groups, filters, per_group = a["groups"], weight[0], weight[1]
    if filters is None:
        ties.freeze(channels, "grouped convolution with one filter")
        return None
    width = 1 if per_group is None else len(per_group)
    out = filters.reshape(groups, -1)
    if groups >= width:
        ties.freeze(per_group, "width of a convolution's groups")
        ties.tie(out, out[:, :1])
        if channels is None:
            ties.freeze(filters, "grouped convolution of channels that are not tracked")
        else:
            ties.tie(channels.reshape(groups, width), out[:, :1])
            ties.follow(node, "groups", None, channels, per=width)
        return filters
    ties.tie(out, out[:1])
    if channels is None:
        ties.freeze(per_group, "grouped convolution of channels that are not tracked")
    elif per_group is not None:
        ties.tie(channels.reshape(groups, width), per_group[None, :])
        _freeze_unless_zero(ties, a, per_group)
    return filters


def _sum_over(ties: Ties, node: Node, a: dict[str, Any], channels: Label, weight: Label) -> None:
    """Input channels meet the weight's; the sum over them loses nothing only where the removed weights are zero."""
    met = ties.meet(channels, weight, _INTO_OPAQUE.format(operator=operator_name(node.target)))
    _freeze_unless_zero(ties, a, met)


def _freeze_unless_zero(ties: Ties, a: dict[str, Any], summed: Label) -> None:
    if not _zero_with_its_parameter(a["weight"]):
        ties.freeze(summed, "input of a computed weight")


def _zero_with_its_parameter(weight: Node) -> bool:
    """Whether a weight is zero wherever its parameter is: the parameter itself, rearranged or scaled."""
    if weight.op == "get_attr":
        return True
    operator = operator_name(weight.target)
    if operator not in (*_RESHAPES, "mul", "div"):
        return False
    factors = weight.all_input_nodes if operator == "mul" else [weight.args[0]]
    return any(
        isinstance(factor, Node)
        and (operator in _RESHAPES or factor.meta["shapes"] == weight.meta["shapes"])
        and _zero_with_its_parameter(factor)
        for factor in factors
    )


def _fix_kernel(ties: Ties, weight: tuple[Label, ...]) -> None:
    for label in weight[2:]:
        ties.freeze(label, "kernel size")


def _bias(ties: Ties, a: dict[str, Any], filters: Label) -> None:
    if a["bias"] is not None:
        ties.meet(ties.of(a["bias"])[0], filters, "bias of filters that are not tracked")


def _channels(ties: Ties, a: dict[str, Any]) -> Label:
    value, weight = ties.of(a["input"]), ties.of(a["weight"])
    return value[len(value) - len(weight) + 1]


def _output(node: Node, weight: tuple[Label, ...], channels: Label) -> Value:
    spatial = len(weight) - 2
    batch = len(node.meta["shapes"]) - spatial - 1
    return (*(None,) * batch, channels, *(None,) * spatial)
