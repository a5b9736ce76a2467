"""Convolutions, linear layers and PReLU: a weight's dimension 0 is the output's channels, dimension 1 the input's."""

from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Channels, Label, Ties, Value, with_zero
from prunec.passes.rules.registry import rule

_INTO_OPAQUE = "the input's channels are not tracked here ({operator})"


@rule("conv1d", "conv2d", "conv3d")
def convolution(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Weight (K, C / groups, ...); channels are the axis before the spatial ones, with or without a batch."""
    channels, weight = _channels(ties, a), ties.of(a["weight"])
    _fix_kernel(ties, weight)
    if a["groups"] == 1:
        _sum_over(ties, node, channels, weight[1])
        filters: Label = weight[0]
    else:
        filters = _grouped(ties, node, a, channels, weight)
    return _output(ties, node, a, weight, _biased(ties, a, filters))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Weight (C, K / groups, ...): in groups, the same index of filters goes in each, or whole groups of one filter."""
    channels, weight, groups = _channels(ties, a), ties.of(a["weight"]), a["groups"]
    _fix_kernel(ties, weight)
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
        ties.freeze(channels, "grouped transposed convolution")
        ties.freeze(weight[0], "grouped transposed convolution")
        if isinstance(filters, Channels):
            filters = filters.take(np.tile(filters.atoms, groups))
    return _output(ties, node, a, weight, _biased(ties, a, filters))


@rule("linear")
def linear(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Weight (out, in), or (in,) for one output without an axis; features are the last axis, the others pass."""
    value, weight = ties.of(a["input"]), ties.of(a["weight"])
    _sum_over(ties, node, value[-1], weight[-1])
    leading = [with_zero(label, label is not None and label.zero and a["bias"] is None) for label in value[:-1]]
    return tuple(leading) if len(weight) == 1 else (*leading, _biased(ties, a, weight[0]))


@rule("prelu")
def prelu(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Its slopes, where there is more than one, belong to axis 1."""
    value, slopes = ties.of(a["self"]), ties.of(a["weight"])[0] if ties.of(a["weight"]) else None
    if slopes is None:
        return value
    channels = ties.meet(value[1], slopes, "prelu over channels that are not tracked")
    return (value[0], with_zero(channels, value[1] is not None and value[1].zero), *value[2:])


def _grouped(ties: Ties, node: Node, a: dict[str, Any], channels: Label, weight: tuple[Label, ...]) -> Label:
    """Grouped convolution: remove whole groups, or the same index in every group, whichever leaves more choices."""
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
            ties.freeze(channels, "grouped convolution of channels that are not tracked")
            ties.freeze(filters, "grouped convolution of channels that are not tracked")
        else:
            ties.tie(tracked, out[:, :1])
            ties.follow(node, "groups", None, channels, per=width)
        return filters
    ties.tie(out, out[:1])
    if tracked is None:
        ties.freeze(channels, "grouped convolution of channels that are not tracked")
        ties.freeze(per_group, "grouped convolution of channels that are not tracked")
    elif isinstance(per_group, Channels):
        ties.tie(tracked, per_group.atoms[None, :])
        zero = per_group.zero or (channels is not None and channels.zero)
        ties.sum_over(node, with_zero(per_group, zero), operator_name(node.target))
    else:
        ties.freeze(channels, "one channel to each of a convolution's groups")
    return filters


def _sum_over(ties: Ties, node: Node, channels: Label, weight: Label) -> None:
    """Input channels meet the weight's; the sum over them loses nothing where one of both is zero."""
    operator = operator_name(node.target)
    met = ties.meet(channels, weight, _INTO_OPAQUE.format(operator=operator))
    zero = any(label is not None and label.zero for label in (channels, weight))
    ties.sum_over(node, with_zero(met, zero), operator)


def _fix_kernel(ties: Ties, weight: tuple[Label, ...]) -> None:
    for label in weight[2:]:
        ties.freeze(label, "kernel size")


def _biased(ties: Ties, a: dict[str, Any], filters: Label) -> Label:
    """Label of the output's channels; its zeros are those of the weight and the bias."""
    if a["bias"] is None:
        return filters
    return ties.meet(filters, ties.of(a["bias"])[0], "bias of filters that are not tracked")


def _channels(ties: Ties, a: dict[str, Any]) -> Label:
    value, weight = ties.of(a["input"]), ties.of(a["weight"])
    return value[len(value) - len(weight) + 1]


def _output(ties: Ties, node: Node, a: dict[str, Any], weight: tuple[Label, ...], channels: Label) -> Value:
    """Labels of the output: the batch passes, and so does an axis of channels that a kernel slides along."""
    value, spatial = ties.of(a["input"]), len(weight) - 2
    batch = [
        with_zero(label, label is not None and label.zero and a["bias"] is None) for label in value[: -spatial - 1]
    ]
    slid: list[Label] = []
    for axis in range(-spatial, 0):
        label = value[axis]
        if label is not None and not _keeps_size(node, a, axis):
            ties.freeze(label, "a kernel slides along these channels")
            label = None
        elif label is not None:
            ties.mix(node, label, f"{operator_name(node.target)} along channels")
        slid.append(with_zero(label, False))
    return (*batch, channels, *slid)


def _keeps_size(node: Node, a: dict[str, Any], axis: int) -> bool:
    """Whether an axis of any size comes out as large as it goes in."""
    if "output_padding" in a or isinstance(a["padding"], str):
        return a["padding"] == "same" and "output_padding" not in a
    stride, padding, dilation = (
        (a[k] * 3)[axis] if len(a[k]) == 1 else a[k][axis] for k in ("stride", "padding", "dilation")
    )
    kernel = a["weight"].meta["shapes"][axis]
    return bool(stride == 1 and 2 * padding == dilation * (kernel - 1))
