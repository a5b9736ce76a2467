"""Operators that move, add or drop whole axes."""

from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.labels import Channels, Label, Ties, Value, parts
from prunec.passes.rules.registry import rule


@rule("permute")
def permute(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes in another order."""
    value = ties.of(a["self"])
    return tuple(value[d] for d in a["dims"])


@rule("transpose", "swapaxes", "t", "numpy_T")
def transpose(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Two axes exchanged; ``t`` exchanges the only two, and ``numpy_T`` reverses all."""
    value = list(ties.of(a["self"]))
    axes = [a[name] for name in ("dim0", "dim1", "axis0", "axis1") if name in a]
    if not axes:
        return tuple(reversed(value))
    first, second = axes
    value[first], value[second] = value[second], value[first]
    return tuple(value)


@rule("mT", "adjoint")
def matrix_transpose(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The last two axes exchanged."""
    value = ties.of(a["self"])
    return (*value[:-2], value[-1], value[-2])


@rule("movedim")
def movedim(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes moved to other places, the others keep their order."""
    value = ties.of(a["self"])
    sources, targets = ([a[k]] if isinstance(a[k], int) else a[k] for k in ("source", "destination"))
    moved = {t % len(value): s % len(value) for s, t in zip(sources, targets, strict=True)}
    rest = iter([axis for axis in range(len(value)) if axis not in moved.values()])
    return tuple(value[moved[axis] if axis in moved else next(rest)] for axis in range(len(value)))


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


@rule("expand", creates=True)
def expand(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """An axis of size 1 that is expanded gets atoms of its own, which follow whatever it meets."""
    return _grown(ties, node, a["self"], "size", a["size"])


@rule("repeat", "tile", creates=True)
def repeat(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Labels are repeated whole; an axis of size 1 that is repeated gets atoms of its own."""
    source: Node = a["self"]
    name = "repeats" if "repeats" in a else "dims"
    counts, value = a[name], ties.of(source)
    result = list(_grown(ties, node, source, name, counts))
    counts = [*(1,) * (len(result) - len(counts)), *counts]  # the counts belong to the last axes
    for axis, label in enumerate(value, start=len(result) - len(value)):
        count = counts[axis]
        if label is not None and not (isinstance(label, Channels) and isinstance(count, int)):
            ties.freeze(label, "repeated")
            result[axis] = None
        elif isinstance(label, Channels):
            result[axis] = label.take(np.tile(label.atoms, count))
    return tuple(result)


def _grown(ties: Ties, node: Node, source: Node, argument: str, sizes: list[Any]) -> tuple[Label, ...]:
    """Labels after axes of size 1 became larger; the sizes that made them so follow the new atoms."""
    shape, value = node.meta["shapes"], ties.of(source)
    missing = len(shape) - len(value)
    offset = len(shape) - len(sizes)
    result: list[Label] = [*(None,) * missing, *value]
    for axis, size in enumerate(shape):
        old = 1 if axis < missing else source.meta["shapes"][axis - missing]
        if old == 1 and size > 1 and axis >= offset and isinstance(sizes[axis - offset], int):
            result[axis] = ties.fresh(size)
            ties.follow(node, argument, axis - offset, result[axis])
        elif argument == "size" and isinstance(sizes[axis - offset], int) and sizes[axis - offset] != -1:
            ties.follow(node, argument, axis - offset, result[axis])
    return tuple(result)


@rule("repeat_interleave")
def repeat_interleave(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Each index stands several times in a row."""
    source = a.get("self")
    value = list(ties.of(source)) if isinstance(source, Node) else []
    dim = a.get("dim")
    if dim is None or not isinstance(a["repeats"], int):
        ties.freeze_value(tuple(value), "repeated by computed numbers")
        return (None,) * len(node.meta["shapes"])
    label = value[dim]
    if isinstance(label, Channels):
        value[dim] = label.take(np.repeat(label.atoms, a["repeats"]))
        if isinstance(a.get("output_size"), int):
            ties.follow(node, "output_size", None, value[dim])
    elif label is not None:
        ties.freeze(label, "repeated positions of merged axes")
        value[dim] = None
    return tuple(value)


@rule("flip")
def flip(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Axes in reverse order."""
    value = list(ties.of(a["self"]))
    for dim in a["dims"]:
        label = value[dim]
        if isinstance(label, Channels):
            value[dim] = label.take(label.atoms[::-1])
    return tuple(value)


@rule("roll")
def roll(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Rolled axes stay whole, since the shift counts their positions."""
    value = ties.of(a["self"])
    rolled = [d % len(value) for d in a["dims"]] if a["dims"] else range(len(value))
    ties.freeze_value(tuple(value[axis] for axis in rolled), "rolled by a number of positions")
    return tuple(None if axis in rolled and parts(label) else label for axis, label in enumerate(value))
