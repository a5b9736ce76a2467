"""Pooling, resizing, padding, patches and shuffles between channels and positions."""

import math
from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Channels, Label, Ties, Value, each_output, with_zero
from prunec.passes.rules.registry import rule

_POOLS = [f"{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("max", "avg", "adaptive_avg", "adaptive_max")]
_RESIZES = (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d",
    "upsample_linear1d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)  # fmt: skip
_SPATIAL_RANK = {"1d": 1, "2d": 2, "3d": 3}


@rule(*_POOLS, *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)), *_RESIZES)
def pool(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Works on each channel alone; a labelled spatial axis stays whole."""
    operator = operator_name(node.target)
    value = ties.of(next(iter(a.values())))
    spatial = next(rank for suffix, rank in _SPATIAL_RANK.items() if suffix in operator)
    ties.freeze_value(value[-spatial:], f"{operator} over these positions")
    return each_output(node, (*value[:-spatial], *(None,) * spatial))


@rule("grid_sampler", "grid_sampler_2d")
def grid_sample(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Samples every channel at the same positions; the positions stay."""
    ties.freeze_value(ties.of(a["grid"]), "sampling positions")
    value = ties.of(a["input"])
    ties.freeze_value((value[0], *value[2:]), "sampled positions")
    return (None, value[1], *(None,) * (len(value) - 2))


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
        label, grows = value[axis], all(isinstance(amount, int) and amount >= 0 for amount in (low, high))
        if not (is_constant and grows and isinstance(label, Channels)):
            ties.freeze(label, "padding of channels")
            value[axis] = None
            continue
        new = [ties.fresh(amount, is_zero) for amount in (low, high)]
        for offset, added in enumerate(new):
            if len(added):
                ties.follow(node, "pad", 2 * position + offset, added)
        value[axis] = label.take(np.concatenate([new[0].atoms, label.atoms, new[1].atoms]))
    return tuple(value) if is_zero or not is_constant else tuple(with_zero(label, False) for label in value)


@rule(*(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def mirrored_pad(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Padded spatial axes stay whole."""
    value, padded = ties.of(a["self"]), len(a["padding"]) // 2
    ties.freeze_value(value[-padded:], "padding of channels")
    return (*value[:-padded], *(None,) * padded)


@rule("im2col")
def im2col(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """(N, C, H, W) -> (N, C kernel, positions): each channel stands as often in a row as the kernel has positions."""
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
