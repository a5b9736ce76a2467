"""Views, which split and merge axes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.graphs import LARGEST_SIZE
from prunec.passes.labels import Atoms, Channels, Label, Packed, Ties, Value
from prunec.passes.rules.registry import rule


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as")
def view(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Both shapes are cut into common factors, each of which carries a label."""
    source: Node = a["self"]
    old: list[int] = []
    labels: list[Label] = []
    for size, label in zip(source.meta["shapes"], ties.of(source), strict=True):
        merged = label.factors if isinstance(label, Packed) else ((size, label),)
        old += [factor for factor, _ in merged]
        labels += [channels for _, channels in merged]
    new = node.meta["shapes"]
    if new == source.meta["shapes"]:
        return _follow(ties, node, a, ties.of(source))
    blocks = common_factors(tuple(old), new)
    if blocks is None:
        ties.freeze_value(ties.of(source), "reshape that cuts across axes")
        return (None,) * len(new)
    factor_labels: dict[int, Label] = {}
    for axis, factors in enumerate(blocks.old):
        factor_labels.update(_split(ties, f"{node.name}.{axis}", labels[axis], factors))
    merged_factors = ([(size, factor_labels[key]) for key, size in factors] for factors in blocks.new)
    return _follow(ties, node, a, tuple(_merge(ties, factors) for factors in merged_factors))


def _follow(ties: Ties, node: Node, a: dict[str, Any], result: tuple[Label, ...]) -> tuple[Label, ...]:
    """Let the size argument follow the labels; a packed axis is written as -1, of which there can be one."""
    name = next((name for name in ("size", "shape", "sizes") if isinstance(a.get(name), list | tuple)), None)
    if name is None:
        return result
    first = a["dim"] % len(a["self"].meta["shapes"]) if name == "sizes" else 0
    labels = list(result[first : first + len(a[name])])
    packed = [axis for axis, label in enumerate(labels) if isinstance(label, Packed) and a[name][axis] != -1]
    inferred = [axis for axis, size in enumerate(a[name]) if isinstance(size, int) and size == -1]
    sizes = node.meta["shapes"][first : first + len(a[name])]
    if len(packed) + sum(sizes[axis] > LARGEST_SIZE for axis in inferred) > 1:
        ties.freeze_value(tuple(labels[axis] for axis in packed), "channels merged with the batch")
        result = tuple(None if isinstance(label, Packed) else label for label in result)
    elif packed:
        ties.follow(node, name, packed[0], labels[packed[0]])
        for axis in inferred:  # no longer the one to infer
            ties.follow(node, name, axis, labels[axis] or Channels(np.full(sizes[axis], -1)))
    ties.follow_sizes(node, name, a[name], [None if isinstance(label, Packed) else label for label in labels])
    return result


@dataclass(frozen=True)
class Factors:
    """The factors (key, size) that each old and each new axis consists of, outermost first."""

    old: list[list[tuple[int, int]]]
    new: list[list[tuple[int, int]]]


def common_factors(old: tuple[int, ...], new: tuple[int, ...]) -> Factors | None:
    """Refine two shapes of equal product to common factors; None where one cuts across the other's axes.

    >>> common_factors((2, 12), (2, 3, 4)).old
    [[(0, 2)], [(1, 3), (2, 4)]]
    """
    result = Factors([[] for _ in old], [[] for _ in new])
    i = j = key = 0
    left, right = (old[0] if old else 1), (new[0] if new else 1)
    while i < len(old) and j < len(new):
        small = min(left, right)
        if not small or max(left, right) % small:
            return None
        if small > 1 or left == right:
            result.old[i].append((key, small))
            result.new[j].append((key, small))
            key += 1
        left, right = left // small, right // small
        step_old, step_new = left == 1, right == 1
        if step_old:
            i += 1
            left = old[i] if i < len(old) else 1
        if step_new:
            j += 1
            right = new[j] if j < len(new) else 1
    products = [math.prod(size for _, size in parts) for parts in (*result.old, *result.new)]
    return result if products == [*old, *new] else None


def _split(ties: Ties, key: str, label: Label, factors: list[tuple[int, int]]) -> dict[int, Label]:
    """Labels of the factors of one axis: one factor carries the atoms, which are tied along the others."""
    result: dict[int, Label] = {key: None for key, _ in factors}
    if not isinstance(label, Channels):
        return result
    if len(label) == 1:  # several channels that glu or a pixel shuffle made one
        ties.freeze(label, "a single channel")
        return result
    sizes = [size for _, size in factors]
    block = label.atoms.reshape(sizes)
    carrier = _constant_but_for(block)
    if carrier is None:
        # The largest factor first; of equal ones the last, which is the shorter stride.
        order = sorted((p for p in range(len(sizes)) if sizes[p] > 1), key=lambda p: (-sizes[p], -p))
        carrier = ties.decide(key, order)
        index: list[Any] = [slice(0, 1)] * len(sizes)
        index[carrier] = slice(None)
        ties.decided(key, order, block[tuple(index)].ravel())
        ties.tie(block, block[tuple(index)])
    result[factors[carrier][0]] = label.take(np.moveaxis(block, carrier, 0).reshape(sizes[carrier], -1)[:, 0])
    return result


def _constant_but_for(block: Atoms) -> int | None:
    """The axis along which alone the atoms vary, if there is one."""
    varying = [axis for axis in range(block.ndim) if (block != block.take([0], axis)).any()]
    return varying[0] if len(varying) == 1 else None


def _merge(ties: Ties, factors: list[tuple[int, Label]]) -> Label:
    """Label of an axis merged from factors: the largest labelled factor repeats, and further ones stay whole."""
    labelled = [position for position, (_, label) in enumerate(factors) if label is not None]
    if not labelled:
        return None
    if any(size > LARGEST_SIZE for size, _ in factors):
        return Packed(tuple(factors))  # type: ignore[arg-type]
    carrier = max(labelled, key=lambda position: factors[position][0])
    others = tuple(factors[position][1] for position in labelled if position != carrier)
    ties.freeze_value(others, "two channel axes merged into one")
    label = factors[carrier][1]
    assert isinstance(label, Channels)
    outer = math.prod(size for size, _ in factors[:carrier])
    inner = math.prod(size for size, _ in factors[carrier + 1 :])
    return label.take(np.tile(np.repeat(label.atoms, inner), outer))
