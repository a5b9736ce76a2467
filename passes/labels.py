"""Axis labels and what operator rules may do with them: tie, freeze, follow.

Every index of every parameter dimension is an *atom*. An axis of a tensor is labelled with the atoms of its
indices (`Channels`), or it is opaque (None): batch, spatial, size 1, anything that isn't pruned. Channels that were
merged with an axis of unknown size, as in ``view(B * C, ...)``, stay known as factors of it (`Packed`). Rules say how
labels flow through an operator and which atoms go together; the ties are solved once, at the end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from prunec.passes.graphs import Shapes, operator_name

Atoms = NDArray[np.int64]

#: What reasons say where the other side of a meeting is unknown.
_UNTRACKED = "not tracked"


@dataclass(frozen=True, eq=False)
class Channels:
    """An axis whose indices are atoms.

    Attributes:
        atoms: Atom of each index, int64 (size,).
        zero: Whether this tensor is zero at the removed indices when the removed parameter slices are zero. Sums
            over such an axis stay the same when it is pruned.
    """

    atoms: Atoms
    zero: bool = False

    def __len__(self) -> int:
        return len(self.atoms)

    def take(self, atoms: Atoms) -> "Channels":
        """Label of other atoms that is zero under the same condition."""
        return Channels(atoms, self.zero)


@dataclass(frozen=True, eq=False)
class Packed:
    """An axis merged from several, outermost first, at least one of unknown size and one of channels.

    Attributes:
        factors: Size and channels (or None) of each factor; an unknown size is a large prime (`graphs.symbol_primes`).
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
    """A label with the same atoms whose tensor is zero at removed indices, or is not."""
    if label is None or label.zero == zero:
        return label
    if isinstance(label, Channels):
        return Channels(label.atoms, zero)
    return Packed(tuple((size, channels and replace(channels, zero=zero)) for size, channels in label.factors))


def is_zero(label: Label) -> bool:
    """Whether a labelled axis is zero at removed indices; False for an opaque one."""
    return label is not None and label.zero


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
        node: The node to rewrite.
        argument: Name of the argument in the operator's schema.
        index: Position in the argument's list, None where the argument is the size itself.
        label: Axis whose kept number is the new value; a packed one becomes -1.
        per: Atoms that make one unit of the size (channels per group where the size counts groups).
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
        option: Position of the answer in the rule's list of answers.
        options: Number of answers.
        carried: Atoms that the answer leaves free; where they are frozen after all, another may do better.
    """

    option: int
    options: int
    carried: Atoms


@dataclass
class Ties:
    """The labels, ties and reasons that the rules of one analysis gave.

    Attributes:
        attention: The axis of attention that carries its atoms: "head_dim", "heads" or "none".
        grouped: The way that grouped convolutions are pruned: "groups", "index" or "auto".
        options: Answers to take instead of the first ones, by the key of their decision.
        values: Labels of every node's output.
        edges: Pairs of equally long atom arrays that go together.
        frozen: Atoms that stay, with the reasons.
        mixing: Operators under which removing differs from zeroing, with the atoms that they mix.
        residual: Channels of sums of two activations.
        head_dims: Axes over which queries meet keys.
        heads: Axes that count the heads of attention.
        follows: Size arguments that follow labels.
        pinned: Arguments that are made explicit where a width changes.
        origins: Why outputs of a node may lack labels, by node: an input of the network, or what froze.
        untracked: The origin of what the current node reads and knows nothing of; empty where it knows.
        pieces: Parts cut out of an axis, each of which keeps at least one channel.
        decisions: Answers that were taken, by the key of their decision.
        unknown_operators: Operators without a rule and how often they occur.
        count: Number of atoms.
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
    origins: dict[Node, str] = field(default_factory=dict)
    untracked: str = ""
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
        """Let atoms at the same position go together; shapes broadcast."""
        a, b = np.broadcast_arrays(left, right)
        self.edges.append((a.ravel(), b.ravel()))

    def meet(self, left: Label, right: Label, reason: str) -> Label:
        """Label of an axis where two tensors meet index by index; one opaque side freezes the other.

        The result counts as zero where both are zero, which is right for sums; products say otherwise by `with_zero`.
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

    def meet_all(self, labels: Sequence[Label], reason: str) -> Label:
        """Label of an axis where any number of tensors meet; None where there is none."""
        met = labels[0] if labels else None
        for label in labels[1:]:
            met = self.meet(met, label, reason)
        return met

    def freeze(self, label: Label, reason: str) -> None:
        """Let these atoms stay for a reason, in words that a user reads."""
        if _UNTRACKED in reason and self.untracked:
            reason = f"{reason}: {self.untracked}"
        self.frozen += [(channels.atoms, reason) for channels in parts(label)]

    def freeze_value(self, value: Value, reason: str) -> None:
        """Let every axis of a tensor, or of each of several tensors, stay."""
        for label in axes(value):
            self.freeze(label, reason)

    def mix(self, node: Node, label: Label, operator: str) -> None:
        """Note that an operator mixes these channels, so that removing some of them differs from zeroing them."""
        self.mixing += [Mixing(node, channels.atoms, operator) for channels in parts(label)]

    def sum_over(self, node: Node, label: Label, operator: str) -> None:
        """Note that an operator sums over these channels, which is exact only if the removed ones are zero."""
        if label is not None and not label.zero:
            self.mix(node, label, operator)

    def decide(self, key: str, options: Sequence[Any]) -> Any:
        """The answer to take among several right ones; the rule then reports it by `decided`."""
        return options[self.options.get(key, 0)]

    def decided(self, key: str, options: Sequence[Any], carried: Atoms) -> None:
        """Report the atoms that the answer to ``key`` leaves free."""
        self.decisions[key] = Decision(self.options.get(key, 0), len(options), carried)

    def follow(self, node: Node, argument: str, index: int | None, label: Label, per: int = 1) -> None:
        """Let a size argument follow the number of kept atoms of a label."""
        if label is not None:
            self.follows.append(Follow(node, argument, index, label, per))

    def follow_sizes(self, node: Node, argument: str, sizes: Sequence[Any], labels: Sequence[Label]) -> None:
        """Let a list of sizes, one for each axis, follow labels; -1 and symbolic entries stay as they are."""
        for index, (size, label) in enumerate(zip(sizes, labels, strict=True)):
            if isinstance(size, int) and size != -1:
                self.follow(node, argument, index, label)

    def pin(self, node: Node, argument: str, value: Any, label: Label) -> None:
        """Set an argument to a value where channels of a label go."""
        self.pinned += [Pinned(node, argument, value, channels) for channels in parts(label)]

    def of(self, node: Any) -> tuple[Label, ...]:
        """Labels of the one tensor that a node yields."""
        value = self.values[node]
        assert isinstance(value, tuple)
        return value


def opaque(shapes: Shapes) -> Value:
    """Labels that say nothing, for outputs of these shapes."""
    if isinstance(shapes, list):
        return [opaque(item) for item in shapes]
    return None if shapes is None else (None,) * len(shapes)


def each_output(node: Node, labels: Sequence[Label]) -> Value:
    """The same labels for each output of a node."""
    shapes = node.meta["shapes"]
    return [tuple(labels) for _ in shapes] if isinstance(shapes, list) else tuple(labels)


def names_cause(reason: str) -> bool:
    """Whether a reason to freeze is the cause itself, not one of the values that are unknown because of it."""
    return _UNTRACKED not in reason


def not_tracked(node: Node) -> str:
    """The reason why channels stay that meet values without labels in an operator."""
    return f"{operator_name(node.target)} with values that are not tracked"
