"""Padding, patches and shuffles between channels and positions."""

import math
from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.labels import Channels, Label, Ties, Value, with_zero
from prunec.passes.rules.registry import rule


@rule("pad", "constant_pad_nd")
def pad(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes padded with a constant grow by channels of their own; with anything else they stay whole."""
    value = list(ties.of(a["self"]))
    amounts: list[Any] = a["pad"]
    is_constant = a.get("mode", "constant") == "constant"
    is_zero = is_constant and not a.get("value")
    for position in range(len(amounts) // 2):
        axis = len(value) - 1 - position
        low, high = amounts[2 * position : 2 * position + 2]
        if low == 0 and high == 0:
            continue
        label = value[axis]
        if not is_constant or not isinstance(label, Channels) or not _grow(low, high):
            ties.freeze(label, "padding of channels")
            value[axis] = None
            continue
        new = [ties.fresh(amount, is_zero) for amount in (low, high)]
        for offset, added in enumerate(new):
            if len(added):
                ties.follow(node, "pad", 2 * position + offset, added)
        value[axis] = label.take(np.concatenate([new[0].atoms, label.atoms, new[1].atoms]))
    return tuple(value) if is_zero or not is_constant else tuple(with_zero(label, False) for label in value)


def _grow(low: Any, high: Any) -> bool:
    return isinstance(low, int) and isinstance(high, int) and low >= 0 and high >= 0


@rule(*(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def mirrored_pad(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Padded spatial axes stay whole."""
    value = list(ties.of(a["self"]))
    for position in range(len(a["padding"]) // 2):
        ties.freeze(value[-1 - position], "padding of channels")
        value[-1 - position] = None
    return tuple(value)


@rule("im2col")
def im2col(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """(N, C, H, W) -> (N, C kernel, positions): each channel kernel times in a row."""
    value = ties.of(a["self"])
    ties.freeze_value(value[-2:], "patches of these positions")
    return (*value[:-3], _repeated(value[-3], math.prod(a["kernel_size"])), None)


@rule("col2im")
def col2im(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """(N, C kernel, positions) -> (N, C, H, W)."""
    value = ties.of(a["self"])
    ties.freeze(value[-1], "patches of these positions")
    return (*value[:-2], _tied(ties, value[-2], math.prod(a["kernel_size"])), None, None)


@rule("pixel_shuffle")
def pixel_shuffle(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """(..., C r r, H, W) -> (..., C, H r, W r): the r r slices of a channel go together."""
    value = ties.of(a["self"])
    ties.freeze_value(value[-2:], "positions of a pixel shuffle")
    return (*value[:-3], _tied(ties, value[-3], a["upscale_factor"] ** 2), None, None)


@rule("pixel_unshuffle")
def pixel_unshuffle(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """(..., C, H r, W r) -> (..., C r r, H, W)."""
    value = ties.of(a["self"])
    ties.freeze_value(value[-2:], "positions of a pixel shuffle")
    return (*value[:-3], _repeated(value[-3], a["downscale_factor"] ** 2), None, None)


@rule("channel_shuffle")
def channel_shuffle(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Channels as (groups, n) exchanged to (n, groups): the same index goes in every group."""
    value = list(ties.of(a["self"]))
    label = value[1]
    if isinstance(label, Channels):
        block = label.atoms.reshape(a["groups"], -1)
        ties.tie(block, block[:1])
        value[1] = label.take(np.repeat(block[0], a["groups"]))
    return tuple(value)


@rule("glu")
def glu(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The first half times the sigmoid of the second: both halves go together."""
    value = list(ties.of(a["self"]))
    label = value[a["dim"]]
    if isinstance(label, Channels):
        first, second = np.split(label.atoms, 2)
        ties.tie(first, second)
        value[a["dim"]] = label.take(first)
    return tuple(value)


def _repeated(label: Label, times: int) -> Label:
    return label.take(np.repeat(label.atoms, times)) if isinstance(label, Channels) else label


def _tied(ties: Ties, label: Label, times: int) -> Label:
    if not isinstance(label, Channels):
        return label
    block = label.atoms.reshape(-1, times)
    ties.tie(block, block[:, :1])
    return label.take(block[:, 0])
