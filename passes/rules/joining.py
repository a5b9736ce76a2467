"""Operators that join tensors or cut them along an axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from prunec.passes.labels import Channels, Label, Ties, Value
from prunec.passes.operators import EVEN_SPLITS
from prunec.passes.rules.registry import rule

_NOT_TRACKED = "concatenation with values that are not tracked"


@rule("cat")
def cat(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """Labels are concatenated along the axis and meet on the others."""
    tensors = [n for n in a["tensors"] if n.meta["shapes"] != (0,)]
    axis = a["dim"] % len(node.meta["shapes"])
    values = [ties.of(n) for n in tensors]
    return tuple(
        _concatenated(ties, labels, [n.meta["shapes"][axis] for n in tensors])
        if position == axis
        else ties.meet_all(labels, _NOT_TRACKED)
        for position, labels in enumerate(zip(*values, strict=True))
    )


def _concatenated(ties: Ties, labels: Sequence[Label], sizes: list[int]) -> Label:
    if not any(isinstance(label, Channels) for label in labels):
        ties.freeze_value(tuple(labels), _NOT_TRACKED)
        return None
    parts = []
    for label, size in zip(labels, sizes, strict=True):
        if isinstance(label, Channels):
            parts.append(label)
        else:
            # Positions that aren't tracked keep their places in the axis as atoms that stay.
            ties.freeze(label, _NOT_TRACKED)
            parts.append(ties.fresh(size, zero=True))
            ties.freeze(parts[-1], _NOT_TRACKED)
    return Channels(np.concatenate([part.atoms for part in parts]), all(part.zero for part in parts))


@rule("stack")
def stack(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The new axis is opaque; the others meet."""
    axes = zip(*(ties.of(n) for n in a["tensors"]), strict=True)
    result = [ties.meet_all(labels, "stacked values that are not tracked") for labels in axes]
    result.insert(a["dim"] % len(node.meta["shapes"]), None)
    return tuple(result)


@rule("split_with_sizes", *EVEN_SPLITS)
def split(ties: Ties, node: Node, a: dict[str, Any]) -> Value:
    """The sizes of the pieces follow the numbers of channels kept in each (`rewrite` makes the sizes explicit)."""
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
    """The bounds of a range follow the number of channels kept before them; a range with a step stays whole."""
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
    """Label of a part of an axis, which never loses all its channels; a part of size 1 would broadcast and stays.

    A part with nothing in it, such as a skip of width 0, is empty at any width.
    """
    if not len(label):
        return None
    if len(label) == 1:
        ties.freeze(label, "a single channel cut out")
        return None
    ties.pieces.append(label.atoms)
    return label
