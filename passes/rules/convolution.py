"""Convolutions, linear layers and PReLU: the dimensions of weights meet the channels of inputs and outputs."""

from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Channels, Label, Ties, Value, is_zero, with_zero
from prunec.passes.operators import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from prunec.passes.rules.registry import rule

_GROUPED_UNTRACKED = "grouped convolution of channels that are not tracked"


@rule(*CONVOLUTIONS)
def convolution(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The weight is (K, C / groups, ...); channels are the axis before the spatial ones, with or without a batch."""
    channels, weight = _channels(ties, a), ties.of(a["weight"])
    ties.freeze_value(weight[2:], "kernel size")
    if a["groups"] == 1:
        _sum_over(ties, node, channels, weight[1])
        filters: Label = weight[0]
    else:
        filters = _grouped(ties, node, a, channels, weight)
    return _output(ties, node, a, weight, _biased(ties, a, filters))


@rule(*TRANSPOSED_CONVOLUTIONS)
def transposed_convolution(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The weight is (C, K / groups, ...); groups lose the same index of filters each, or go whole if of one filter."""
    channels, weight, groups = _channels(ties, a), ties.of(a["weight"]), a["groups"]
    ties.freeze_value(weight[2:], "kernel size")
    filters: Label = weight[1]
    if groups == 1:
        _sum_over(ties, node, channels, weight[0])
    elif weight[1] is None and isinstance(channels, Channels) and isinstance(weight[0], Channels):
        block = channels.atoms.reshape(groups, -1)
        ties.tie(channels.atoms, weight[0].atoms)
        ties.tie(block, block[:, :1])
        ties.follow(node, "groups", None, channels, per=block.shape[1])
        filters = Channels(block[:, 0], weight[0].zero)
    else:
        ties.freeze_value((channels, weight[0]), "grouped transposed convolution")
        if isinstance(filters, Channels):
            filters = filters.take(np.tile(filters.atoms, groups))
    return _output(ties, node, a, weight, _biased(ties, a, filters))


@rule("linear")
def linear(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The weight is (out, in), or (in,) for an output without an axis; features are the last axis, the others pass."""
    value, weight = ties.of(a["input"]), ties.of(a["weight"])
    _sum_over(ties, node, value[-1], weight[-1])
    leading = [with_zero(label, is_zero(label) and a["bias"] is None) for label in value[:-1]]
    return tuple(leading) if len(weight) == 1 else (*leading, _biased(ties, a, weight[0]))


@rule("prelu")
def prelu(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The slopes, where there is more than one, belong to axis 1."""
    value, slopes = ties.of(a["self"]), ties.of(a["weight"])[0] if ties.of(a["weight"]) else None
    if slopes is None:
        return value
    channels = ties.meet(value[1], slopes, "prelu over channels that are not tracked")
    return (value[0], with_zero(channels, is_zero(value[1])), *value[2:])


def _grouped(ties: Ties, node: Node, a: dict[str, Any], channels: Label, weight: tuple[Label, ...]) -> Label:
    """Remove whole groups of a convolution, or the same index in every group, whichever leaves more choices."""
    groups, filters, per_group = a["groups"], weight[0], weight[1]
    if not isinstance(filters, Channels):
        ties.freeze(channels, "grouped convolution with one filter")
        return None
    width = len(per_group) if isinstance(per_group, Channels) else 1
    out = filters.atoms.reshape(groups, -1)
    modes = ["groups", "index"] if groups >= width else ["index", "groups"]
    if ties.grouped != "auto" and not width == out.shape[1] == 1:
        modes = [ties.grouped]
    elif width == 1:
        modes = ["groups"]
    mode = ties.decide(node.name, modes)
    ties.decided(node.name, modes, (out[:, :1] if mode == "groups" else out[:1]).ravel())
    tracked = channels.atoms.reshape(groups, width) if isinstance(channels, Channels) else None
    if mode == "groups":
        ties.freeze(per_group, "width of a convolution's groups")
        ties.tie(out, out[:, :1])
        if tracked is None:
            ties.freeze_value((channels, filters), _GROUPED_UNTRACKED)
        else:
            ties.tie(tracked, out[:, :1])
            ties.follow(node, "groups", None, channels, per=width)
        return filters
    ties.tie(out, out[:1])
    if tracked is None:
        ties.freeze_value((channels, per_group), _GROUPED_UNTRACKED)
    elif isinstance(per_group, Channels):
        ties.tie(tracked, per_group.atoms[None, :])
        ties.sum_over(node, with_zero(per_group, per_group.zero or is_zero(channels)), operator_name(node.target))
    else:
        ties.freeze(channels, "one channel to each of a convolution's groups")
    return filters


def _sum_over(ties: Ties, node: Node, channels: Label, weight: Label) -> None:
    """Let input channels meet the weight's; the sum over them is exact where one of both is zero."""
    operator = operator_name(node.target)
    met = ties.meet(channels, weight, f"the input's channels are not tracked here ({operator})")
    ties.sum_over(node, with_zero(met, is_zero(channels) or is_zero(weight)), operator)


def _biased(ties: Ties, a: dict[str, Any], filters: Label) -> Label:
    """Label of the output's channels, which are zero where the weight and the bias are."""
    if a["bias"] is None:
        return filters
    return ties.meet(filters, ties.of(a["bias"])[0], "bias of filters that are not tracked")


def _channels(ties: Ties, a: dict[str, Any]) -> Label:
    value, weight = ties.of(a["input"]), ties.of(a["weight"])
    return value[len(value) - len(weight) + 1]


def _output(ties: Ties, node: Node, a: dict[str, Any], weight: tuple[Label, ...], channels: Label) -> Value:
    """Labels of the output: the batch passes, and so does an axis of channels that a kernel slides along."""
    value, spatial = ties.of(a["input"]), len(weight) - 2
    batch = [with_zero(label, is_zero(label) and a["bias"] is None) for label in value[: -spatial - 1]]
    slid: list[Label] = [None] * spatial
    for axis, label in zip(range(-spatial, 0), value[-spatial:], strict=True):
        if label is not None and _keeps_size(a, axis):
            ties.mix(node, label, f"{operator_name(node.target)} along channels")
            slid[axis] = with_zero(label, False)
        else:
            ties.freeze(label, "a kernel slides along these channels")
    return (*batch, channels, *slid)


def _keeps_size(a: dict[str, Any], axis: int) -> bool:
    """Whether an axis of any size comes out as large as it goes in."""
    if "output_padding" in a or isinstance(a["padding"], str):
        return a["padding"] == "same" and "output_padding" not in a
    stride, padding, dilation = (
        (a[k] * 3)[axis] if len(a[k]) == 1 else a[k][axis] for k in ("stride", "padding", "dilation")
    )
    kernel = a["weight"].meta["shapes"][axis]
    return bool(stride == 1 and 2 * padding == dilation * (kernel - 1))
