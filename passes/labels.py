"""Axis labels and what operator rules may do with them: tie, freeze, follow.

Every index of every parameter dimension is an *atom*. An axis of a tensor is labelled with the atoms of its
indices (int64 array), or it is opaque (None): batch, spatial, size 1, anything that isn't pruned. Rules say how
labels flow through an operator and which atoms go together; the ties are solved once, at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.graphs import Shapes

Atoms = NDArray[np.int64]
Label = Atoms | None
#: Labels of one tensor's axes, a list of those for several outputs, or None where there is no tensor.
Value = tuple[Label, ...] | list["Value"] | None


@dataclass(frozen=True, eq=False)
class Follow:
    """A node argument that holds sizes: those of labelled axes follow the number of kept atoms.

    Attributes:
        node: the node to rewrite.
        argument: name of the argument in the operator's schema.
        index: position in the argument's list, None where the argument is the size itself.
        label: atoms whose kept number is the new value.
        per: atoms that make one unit of the size (channels per group where the size counts groups).
    """

    node: Node
    argument: str
    index: int | None
    label: Atoms
    per: int = 1


@dataclass
class Ties:
    """What the rules of one analysis have found.

    Attributes:
        values: labels of every node's output.
        edges: pairs of equally long atom arrays that go together.
        frozen: atoms that stay, with the reason.
        residual: channels of sums of two activations.
        follows: size arguments.
        pieces: parts cut out of an axis, each of which keeps at least one channel.
        unknown_operators: operators without a rule and how often they occur.
        count: number of atoms.
    """

    values: dict[Node, Value] = field(default_factory=dict)
    edges: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    frozen: list[tuple[Atoms, str]] = field(default_factory=list)
    residual: list[Atoms] = field(default_factory=list)
    follows: list[Follow] = field(default_factory=list)
    pieces: list[Atoms] = field(default_factory=list)
    unknown_operators: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def fresh(self, size: int) -> Atoms:
        """New atoms for an axis."""
        atoms = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return atoms

    def tie(self, left: Atoms, right: Atoms) -> None:
        """Atoms at the same position go together; shapes broadcast."""
        a, b = np.broadcast_arrays(left, right)
        self.edges.append((a.ravel(), b.ravel()))

    def meet(self, left: Label, right: Label, reason: str) -> Label:
        """Label of an axis where two tensors meet index by index; one opaque side freezes the other."""
        if left is None or right is None:
            self.freeze(left, reason)
            self.freeze(right, reason)
            return None
        if left is not right:
            self.tie(left, right)
        return left

    def freeze(self, label: Label, reason: str) -> None:
        """These atoms stay, because of ``reason`` (words that a user reads)."""
        if label is not None:
            self.frozen.append((np.ravel(label), reason))

    def freeze_value(self, value: Value, reason: str) -> None:
        """Every axis of a tensor, or of each of several, stays."""
        for item in value or ():
            if isinstance(item, np.ndarray):
                self.freeze(item, reason)
            elif item is not None:
                self.freeze_value(item, reason)

    def follow(self, node: Node, argument: str, index: int | None, label: Label, per: int = 1) -> None:
        """This size argument counts the kept atoms of ``label``."""
        if label is not None:
            self.follows.append(Follow(node, argument, index, label, per))

    def follow_sizes(self, node: Node, argument: str, sizes: Sequence[Any], labels: Sequence[Label]) -> None:
        """A list of sizes, one per axis; -1 and symbolic entries stay as they are."""
        for index, (size, label) in enumerate(zip(sizes, labels, strict=True)):
            if isinstance(size, int) and size != -1:
                self.follow(node, argument, index, label)

    def of(self, node: Any) -> tuple[Label, ...]:
        """Labels of the one tensor that a node yields."""
        value = self.values[node]
        assert isinstance(value, tuple)
        return value


def opaque(shapes: Shapes) -> Value:
    """Labels that say nothing, for outputs of these shapes."""
    if shapes is None:
        return None
    if isinstance(shapes, list):
        return [opaque(item) for item in shapes]
    return (None,) * len(shapes)
