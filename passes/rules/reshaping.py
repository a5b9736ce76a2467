"""Operators that rearrange axes: permutations, views, flattening, expansion."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.graphs import LARGEST_SIZE
from prunec.passes.labels import Label, Ties, Value
from prunec.passes.rules.registry import rule


@rule("permute")
def permute(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes in another order."""
    value = ties.of(a["self"])
    return tuple(value[d] for d in a["dims"])


@rule("transpose", "t", "numpy_T")
def transpose(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Two axes exchanged; ``t`` exchanges the only two."""
    value = list(ties.of(a["self"]))
    if "dim0" not in a:
        return tuple(reversed(value))
    value[a["dim0"]], value[a["dim1"]] = value[a["dim1"]], value[a["dim0"]]
    return tuple(value)


@rule("unsqueeze")
def unsqueeze(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """A new axis of size 1."""
    value = list(ties.of(a["self"]))
    value.insert(a["dim"] % len(node.meta["shapes"]), None)
    return tuple(value)


@rule("squeeze")
def squeeze(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes of size 1 vanish."""
    source: Node = a["self"]
    shape, dims = source.meta["shapes"], a.get("dim")
    chosen = range(len(shape)) if dims is None else ([dims] if isinstance(dims, int) else dims)
    gone = {d % len(shape) for d in chosen if shape[d] == 1}
    return tuple(label for d, label in enumerate(ties.of(source)) if d not in gone)


@rule("expand")
def expand(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """An axis of size 1 that is expanded gets atoms of its own, which follow whatever it meets."""
    source: Node = a["self"]
    shape, value = node.meta["shapes"], ties.of(source)
    missing = len(shape) - len(value)
    result: list[Label] = [*(None,) * missing, *value]
    for axis, size in enumerate(shape):
        old = 1 if axis < missing else source.meta["shapes"][axis - missing]
        if old == 1 and size > 1 and isinstance(a["size"][axis], int):
            result[axis] = ties.fresh(size)
    ties.follow_sizes(node, "size", a["size"], result)
    return tuple(result)


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten")
def view(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes are split and merged: both shapes are cut into common factors, and each factor carries a label."""
    source: Node = a["self"]
    old, new = source.meta["shapes"], node.meta["shapes"]
    blocks = common_factors(old, new)
    if blocks is None:
        ties.freeze_value(ties.of(source), "reshape that cuts across axes")
        return (None,) * len(new)
    labels: dict[int, Label] = {}
    for axis, factors in enumerate(blocks.old):
        labels.update(_split(ties, ties.of(source)[axis], factors))
    result = tuple(_merge(ties, [(size, labels[key]) for key, size in factors]) for factors in blocks.new)
    for name in ("size", "shape", "sizes"):
        if isinstance(a.get(name), list | tuple):
            first = a["dim"] % len(old) if name == "sizes" else 0
            ties.follow_sizes(node, name, a[name], result[first : first + len(a[name])])
    return result


@dataclass(frozen=True)
class Factors:
    """For each old and each new axis the factors it consists of, outermost first, as (key, size)."""

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
        if max(left, right) % small if small else True:
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
    return result if _complete(result, old, new) else None


def _complete(factors: Factors, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    def product(parts: list[tuple[int, int]]) -> int:
        return int(np.prod([size for _, size in parts], dtype=object)) if parts else 1

    sides = ((factors.old, old), (factors.new, new))
    return all(product(parts) == size for side, shape in sides for parts, size in zip(side, shape, strict=True))


def _split(ties: Ties, label: Label, factors: list[tuple[int, int]]) -> dict[int, Label]:
    """Labels of the factors of one axis: one carries the atoms, along the others they are tied."""
    result: dict[int, Label] = {key: None for key, _ in factors}
    if label is None or not factors:
        return result
    sizes = [size for _, size in factors]
    block = label.reshape(sizes)
    carrier = _constant_but_for(block)
    if carrier is None:
        carrier = int(np.argmax(sizes))
        index: list[Any] = [slice(0, 1)] * len(sizes)
        index[carrier] = slice(None)
        ties.tie(block, block[tuple(index)])
    result[factors[carrier][0]] = np.moveaxis(block, carrier, 0).reshape(sizes[carrier], -1)[:, 0]
    return result


def _constant_but_for(block: np.ndarray[Any, np.dtype[np.int64]]) -> int | None:
    """The axis along which alone the atoms vary, if there is one."""
    varying = [axis for axis in range(block.ndim) if (block != block.take([0], axis)).any()]
    return varying[0] if len(varying) == 1 else None


def _merge(ties: Ties, factors: list[tuple[int, Label]]) -> Label:
    """Label of an axis merged from factors: the largest labelled one repeats, further ones stay whole."""
    labelled = [position for position, (_, label) in enumerate(factors) if label is not None]
    if not labelled:
        return None
    carrier = max(labelled, key=lambda position: factors[position][0])
    for position in labelled:
        if position != carrier:
            ties.freeze(factors[position][1], "two channel axes merged into one")
    label = factors[carrier][1]
    outer = int(np.prod([size for size, _ in factors[:carrier]], dtype=object))
    inner = int(np.prod([size for size, _ in factors[carrier + 1 :]], dtype=object))
    if max(outer, inner) > LARGEST_SIZE:
        ties.freeze(label, "channels merged with the batch")
        return None
    assert label is not None
    return np.tile(np.repeat(label, inner), outer)
