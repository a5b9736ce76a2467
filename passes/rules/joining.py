"""Operators that join tensors or cut them along an axis."""

from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.labels import Channels, Label, Ties, Value
from prunec.passes.rules.registry import rule

_NOT_TRACKED = "concatenation with values that are not tracked"


@rule("cat")
def cat(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Labels are concatenated along the axis and meet on the others."""
    tensors = [n for n in a["tensors"] if n.meta["shapes"] != (0,)]
    axis = a["dim"] % len(node.meta["shapes"])
    values = [ties.of(n) for n in tensors]
    result: list[Label] = list(values[0])
    for other in range(len(result)):
        for value in values[1:]:
            if other != axis:
                result[other] = ties.meet(result[other], value[other], _NOT_TRACKED)
    result[axis] = _concatenated(ties, [v[axis] for v in values], [n.meta["shapes"][axis] for n in tensors])
    return tuple(result)


def _concatenated(ties: Ties, labels: list[Label], sizes: list[int]) -> Label:
    if not any(isinstance(label, Channels) for label in labels):
        for label in labels:
            ties.freeze(label, _NOT_TRACKED)
        return None
    parts = []
    for label, size in zip(labels, sizes, strict=True):
        if isinstance(label, Channels):
            parts.append(label)
        else:
            # Positions that aren't tracked keep their place in the axis, as atoms that stay.
            ties.freeze(label, _NOT_TRACKED)
            parts.append(ties.fresh(size, zero=True))
            ties.freeze(parts[-1], _NOT_TRACKED)
    return Channels(np.concatenate([part.atoms for part in parts]), all(part.zero for part in parts))


@rule("stack")
def stack(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """A new opaque axis; the others meet."""
    values = [ties.of(n) for n in a["tensors"]]
    result = list(values[0])
    for value in values[1:]:
        result = [ties.meet(x, y, "stacked values that are not tracked") for x, y in zip(result, value, strict=True)]
    result.insert(a["dim"] % len(node.meta["shapes"]), None)
    return tuple(result)


@rule("split_with_sizes", "split", "chunk", "unsafe_chunk", "unsafe_split")
def split(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Pieces of a label; the piece sizes follow what is kept of each (`rewrite` makes them explicit)."""
    value = ties.of(a["self"])
    axis = a["dim"] % len(value)
    sizes = [shape[axis] for shape in node.meta["shapes"]]
    label = value[axis]
    if not isinstance(label, Channels):
        ties.freeze(label, "channels merged with the batch are cut")
        return [(*value[:axis], None, *value[axis + 1 :]) for _ in sizes]
    pieces = [label.take(atoms) for atoms in np.split(label.atoms, np.cumsum(sizes)[:-1])]
    for index, piece in enumerate(pieces):
        ties.follow(node, "split_sizes", index, piece)
    return [(*value[:axis], _piece(ties, piece), *value[axis + 1 :]) for piece in pieces]


@rule("slice")
def slice_(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """A range of a label, whose bounds follow what is kept before them; a stepped one stays whole."""
    value = list(ties.of(a["self"]))
    axis = a["dim"] % len(value)
    label, start, end = value[axis], a["start"] or 0, a["end"]
    if label is None:
        return tuple(value)
    if not isinstance(label, Channels) or a["step"] != 1 or isinstance(start, Node) or isinstance(end, Node):
        ties.freeze(label, "slice with a step or a computed bound")
        value[axis] = None
        return tuple(value)
    size = len(label)
    low, high, _ = slice(start, size if end is None else end).indices(size)
    if (low, high) != (0, size):
        value[axis] = _piece(ties, label.take(label.atoms[low:high]))
        ties.follow(node, "start", None, label.take(label.atoms[:low]))
        ties.follow(node, "end", None, label.take(label.atoms[:high]))
    return tuple(value)


def _piece(ties: Ties, label: Channels) -> Label:
    """A part of an axis never loses all its channels; one of size 1 broadcasts and is never labelled."""
    if len(label) == 1:
        ties.freeze(label, "a single channel cut out")
        return None
    ties.pieces.append(label.atoms)
    return label
