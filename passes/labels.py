"""Axis labels and what operator rules may do with them: tie, freeze, follow.

Every index of every parameter dimension is an *atom*. An axis of a tensor is labelled with the atoms of its
indices (`Channels`), or it is opaque (None): batch, spatial, size 1, anything that isn't pruned. Channels that were
merged with an axis of unknown size, as in ``view(B * C, ...)``, stay known as factors of it (`Packed`). Rules say how
labels flow through an operator and which atoms go together; the ties are solved once, at the end.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.graphs import Shapes

Atoms = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Channels:
    """An axis whose indices are atoms.

    Attributes:
        atoms: of each index, int64 (size,).
        zero: whether this tensor is zero at the removed indices when the removed parameter slices are zero. Sums
            over such an axis lose nothing by its pruning.
    """

    atoms: Atoms
    zero: bool = False

    def __len__(self) -> int:
        return len(self.atoms)

    def take(self, atoms: Atoms) -> "Channels":
        """Other atoms, zero under the same condition."""
        return Channels(atoms, self.zero)


@dataclass(frozen=True, eq=False)
class Packed:
    """An axis merged from several, outermost first, at least one of unknown size and one of channels.

    Attributes:
        factors: (size, channels or None) of each; an unknown size is a large prime (`graphs.symbol_primes`).
    """

    factors: tuple[tuple[int, Channels | None], ...]

    @property
    def zero(self) -> bool:
        """Whether the tensor is zero wherever any of the factors is removed."""
        return all(channels.zero for _, channels in self.factors if channels is not None)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Size of each factor."""
        return tuple(size for size, _ in self.factors)


Label = Channels | Packed | None
#: Labels of one tensor's axes, a list of those for several outputs, or None where there is no tensor.
Value = tuple[Label, ...] | list["Value"] | None


def with_zero(label: Label, zero: bool) -> Label:
    """The same atoms, zero at removed indices or not."""
    if label is None or label.zero == zero:
        return label
    if isinstance(label, Channels):
        return Channels(label.atoms, zero)
    return Packed(tuple((size, channels and replace(channels, zero=zero)) for size, channels in label.factors))


def parts(label: Label) -> list[Channels]:
    """The channels of an axis: one, or one for each labelled factor."""
    if isinstance(label, Packed):
        return [channels for _, channels in label.factors if channels is not None]
    return [] if label is None else [label]


def axes(value: Value) -> Iterable[Label]:
    """Labels of all axes of all tensors of a value."""
    for item in value or ():
        if isinstance(item, Channels | Packed):
            yield item
        elif item is not None:
            yield from axes(item)


@dataclass(frozen=True, eq=False)
class Follow:
    """A node argument that holds sizes: those of labelled axes follow the number of kept atoms.

    Attributes:
        node: the node to rewrite.
        argument: name of the argument in the operator's schema.
        index: position in the argument's list, None where the argument is the size itself.
        label: axis whose kept number is the new value; a packed one becomes -1.
        per: atoms that make one unit of the size (channels per group where the size counts groups).
    """

    node: Node
    argument: str
    index: int | None
    label: Channels | Packed
    per: int = 1


@dataclass(frozen=True, eq=False)
class Pinned:
    """An argument whose meaning depends on a width and must stay what it was: set where the width changes."""

    node: Node
    argument: str
    value: Any
    label: Channels


@dataclass(frozen=True, eq=False)
class Mixing:
    """An operator that mixes channels, so that removing some changes what the others become."""

    node: Node
    atoms: Atoms
    operator: str


@dataclass(frozen=True, eq=False)
class Decision:
    """One of several right answers, taken by a rule.

    Attributes:
        option: position of the answer in the rule's list.
        options: how many there are.
        carried: atoms that the answer leaves free; where they are frozen after all, another may do better.
    """

    option: int
    options: int
    carried: Atoms


@dataclass
class Ties:
    """What the rules of one analysis have found.

    Attributes:
        attention: which axis of attention carries its atoms: "head_dim", "heads" or "none".
        grouped: how grouped convolutions are pruned: "groups", "index" or "auto".
        options: answers to take instead of the first, by the key of their decision.
        values: labels of every node's output.
        edges: pairs of equally long atom arrays that go together.
        frozen: atoms that stay, with the reason.
        mixing: inexact operators.
        residual: channels of sums of two activations.
        head_dims: axes over which queries meet keys.
        heads: axes that count the heads of attention.
        follows: size arguments.
        pinned: arguments to be made explicit.
        pieces: parts cut out of an axis, each of which keeps at least one channel.
        decisions: by key, the answers taken.
        unknown_operators: operators without a rule and how often they occur.
        count: number of atoms.
    """

    attention: str = "head_dim"
    grouped: str = "auto"
    options: dict[str, int] = field(default_factory=dict)
    values: dict[Node, Value] = field(default_factory=dict)
    edges: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    frozen: list[tuple[Atoms, str]] = field(default_factory=list)
    mixing: list[Mixing] = field(default_factory=list)
    residual: list[Atoms] = field(default_factory=list)
    head_dims: list[Atoms] = field(default_factory=list)
    heads: list[Atoms] = field(default_factory=list)
    follows: list[Follow] = field(default_factory=list)
    pinned: list[Pinned] = field(default_factory=list)
    pieces: list[Atoms] = field(default_factory=list)
    decisions: dict[str, Decision] = field(default_factory=dict)
    unknown_operators: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def fresh(self, size: int, zero: bool = False) -> Channels:
        """New atoms for an axis."""
        atoms = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return Channels(atoms, zero)

    def tie(self, left: Atoms, right: Atoms) -> None:
        """Atoms at the same position go together; shapes broadcast."""
        a, b = np.broadcast_arrays(left, right)
        self.edges.append((a.ravel(), b.ravel()))

    def meet(self, left: Label, right: Label, reason: str) -> Label:
        """Label of an axis where two tensors meet index by index; one opaque side freezes the other.

        The result counts as zero where both are: right for sums; products say otherwise by `with_zero`.
        """
        if isinstance(left, Channels) and isinstance(right, Channels):
            if left.atoms is not right.atoms:
                self.tie(left.atoms, right.atoms)
            return left if left.zero == right.zero else Channels(left.atoms)
        if isinstance(left, Packed) and isinstance(right, Packed) and left.sizes == right.sizes:
            pairs = zip(left.factors, right.factors, strict=True)
            met = tuple((size, self.meet(a, b, reason)) for (size, a), (_, b) in pairs)
            return Packed(met) if any(label is not None for _, label in met) else None  # type: ignore[arg-type]
        self.freeze(left, reason)
        self.freeze(right, reason)
        return None

    def freeze(self, label: Label, reason: str) -> None:
        """These atoms stay, because of ``reason`` (words that a user reads)."""
        for channels in parts(label):
            self.frozen.append((channels.atoms, reason))

    def freeze_value(self, value: Value, reason: str) -> None:
        """Every axis of a tensor, or of each of several, stays."""
        for label in axes(value):
            self.freeze(label, reason)

    def mix(self, node: Node, label: Label, operator: str) -> None:
        """This operator mixes these channels: pruned, they are not what they are zeroed."""
        for channels in parts(label):
            self.mixing.append(Mixing(node, channels.atoms, operator))

    def sum_over(self, node: Node, label: Label, operator: str) -> None:
        """The operator sums over these channels: exact only if removed ones are zero."""
        if label is not None and not label.zero:
            self.mix(node, label, operator)

    def decide(self, key: str, options: Sequence[Any]) -> Any:
        """The answer to take among several right ones; the rule then reports it by `decided`."""
        return options[self.options.get(key, 0)]

    def decided(self, key: str, options: Sequence[Any], carried: Atoms) -> None:
        """What the answer to ``key`` leaves free."""
        self.decisions[key] = Decision(self.options.get(key, 0), len(options), carried)

    def follow(self, node: Node, argument: str, index: int | None, label: Label, per: int = 1) -> None:
        """This size argument counts the kept atoms of ``label``."""
        if label is not None:
            self.follows.append(Follow(node, argument, index, label, per))

    def follow_sizes(self, node: Node, argument: str, sizes: Sequence[Any], labels: Sequence[Label]) -> None:
        """A list of sizes, one per axis; -1 and symbolic entries stay as they are."""
        for index, (size, label) in enumerate(zip(sizes, labels, strict=True)):
            if isinstance(size, int) and size != -1:
                self.follow(node, argument, index, label)

    def pin(self, node: Node, argument: str, value: Any, label: Label) -> None:
        """Where channels of ``label`` go, this argument is set to ``value``."""
        for channels in parts(label):
            self.pinned.append(Pinned(node, argument, value, channels))

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


def size_of(label: Channels | Packed) -> int:
    """Size of an axis, with primes for what is unknown."""
    return len(label) if isinstance(label, Channels) else math.prod(label.sizes)
