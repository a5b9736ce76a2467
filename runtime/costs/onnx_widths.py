"""Which places of a network's ONNX file hold widths: found by comparison with a pruned network's export.

Constants of the pruned network are slices of the whole one's, by the atoms of the coupling analysis, and whole numbers
that differ are sizes of its axes. Each place has to be explained by one axis alone, values to the last bit.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from prunec.passes.coupling import Coupling
from prunec.passes.labels import Atoms, axes, parts
from prunec.passes.rewrite import Removed
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.onnx_cutting import CuttableOnnx, Numbers, Place, Slices, numbers_of

#: Readings of the axes of one constant that are tried.
_MOST_READINGS = 64


def cuttable(whole: ModelProto, pruned: ModelProto, coupling: Coupling, removed: Removed) -> CuttableOnnx | Unknown:
    """A model with the places that hold widths, or why they aren't known.

    Args:
        whole: The model of a program as `export_onnx` writes it.
        pruned: The model of the same program without some classes of atoms, some of each group that has several units.
        coupling: The analysis of the program.
        removed: Whether each class of atoms goes, at its root.
    """
    try:
        return _Comparison(whole, pruned, coupling, removed).cuttable()
    except _UnexplainedError as error:
        return Unknown(str(error))


class _UnexplainedError(Exception):
    """Two models differ in more than widths."""


class _Comparison:
    """Two models, of a program and of the same without some atoms, in which the same nodes stand in the same order."""

    def __init__(self, whole: ModelProto, pruned: ModelProto, coupling: Coupling, removed: Removed) -> None:
        self._whole, self._pruned, self._coupling = whole, pruned, coupling
        self._kept = ~removed[coupling.roots]
        self._tensors = {tensor.name: tensor for tensor in whole.graph.initializer}
        self._twins = {tensor.name: tensor for tensor in pruned.graph.initializer}
        self._once: dict[tuple[str, tuple[Any, ...]], Slices | Numbers] = {}
        self._values = {each.name: each.name for each in whole.graph.input}
        for group in coupling.groups:
            if group.count > 1 and not removed[coupling.units(group)].any():
                raise _UnexplainedError(f"the pruned network keeps all units of {group.name}.")

    def cuttable(self) -> CuttableOnnx:
        """The model with its places."""
        if any(map(uses_external_data, (*self._whole.graph.initializer, *self._pruned.graph.initializer))):
            raise _UnexplainedError("weights stand beside the file.")
        nodes, twins = self._whole.graph.node, self._pruned.graph.node
        if _frame(self._whole) != _frame(self._pruned) or len(nodes) != len(twins):
            raise _UnexplainedError("the pruned network is exported to other nodes.")
        constants: dict[Place, Slices | Numbers] = {}
        attributes: dict[Place, Numbers] = {}
        for number, (node, twin) in enumerate(zip(nodes, twins, strict=True)):
            if _kind(node) != _kind(twin):
                raise _UnexplainedError(f"the pruned network is exported to other nodes than {node.name}.")
            own = self._cuts(node, twin)
            constants |= {(number, at): cut for at, cut in own.items()}
            attributes |= {(number, at): cut for at, cut in self._sizes_in(node, twin, _sliced(own)).items()}
            self._values |= dict(zip(node.output, twin.output, strict=True))
        outputs = zip(self._whole.graph.output, self._pruned.graph.output, strict=True)
        if any(self._values.get(each.name, each.name) != twin.name for each, twin in outputs):
            raise _UnexplainedError("the pruned network is exported with other outputs.")
        return CuttableOnnx(self._whole, self._coupling, constants, attributes)

    def _cuts(self, node: NodeProto, twin: NodeProto) -> dict[int, Slices | Numbers]:
        """What becomes of the constants that a node reads, by the position of the input."""
        cuts: dict[int, Slices | Numbers] = {}
        for at, (name, other) in enumerate(zip(node.input, twin.input, strict=True)):
            if name in self._tensors and other in self._twins:
                if (cut := self._cut(name, other, _sliced(cuts))) is not None:
                    cuts[at] = self._once.setdefault((name, self._reading(cut)), cut)
            elif self._values.get(name, "") != other:
                raise _UnexplainedError(f"{node.name} reads other values in the pruned network.")
        return cuts

    def _cut(self, name: str, other: str, near: Sequence[Atoms]) -> Slices | Numbers | None:
        """How a constant becomes another one; axes of the node's other constants explain it before any others do."""
        whole, pruned = numpy_helper.to_array(self._tensors[name]), numpy_helper.to_array(self._twins[other])
        if whole.dtype != pruned.dtype or whole.ndim != pruned.ndim:
            raise _UnexplainedError(f"{name} is another tensor in the pruned network.")
        if whole.shape == pruned.shape:
            is_equal = whole.tobytes() == pruned.tobytes()
            return None if is_equal else self._sizes(name, whole, pruned, near)
        named: list[Sequence[Atoms]] = [self._named(name, dim, whole.ndim) for dim in range(whole.ndim)]
        choices_of: tuple[list[Sequence[Atoms]], ...] = (named, [near] * whole.ndim, [self._axes] * whole.ndim)
        sizes = list(zip(whole.shape, pruned.shape, strict=True))
        for axes_of in choices_of:
            choices = [
                [None] if of_dim[0] == of_dim[1] else [atoms for atoms in every if self._sizes_of(atoms) == of_dim]
                for every, of_dim in zip(axes_of, sizes, strict=True)
            ]
            readings = map(Slices, itertools.islice(itertools.product(*choices), _MOST_READINGS))
            fitting = [each for each in readings if each.of(whole, self._kept).tobytes() == pruned.tobytes()]
            if len(set(map(self._reading, fitting))) > 1:
                raise _UnexplainedError(f"{name} may be cut in several ways.")
            if fitting:
                return fitting[0]
        raise _UnexplainedError(f"{name} is no slice of itself in the pruned network.")

    def _named(self, name: str, dim: int, dims: int) -> Sequence[Atoms]:
        """The axes of the program's tensor of a name, which the exporter may have transposed."""
        axes = (self._coupling.slots.get((name, each)) for each in (dim, dims - 1 - dim))
        return [atoms for atoms in axes if atoms is not None]

    def _sizes_in(self, node: NodeProto, twin: NodeProto, near: Sequence[Atoms]) -> dict[int, Numbers]:
        """What becomes of the attributes of a node that hold sizes, by their position."""
        sizes: dict[int, Numbers] = {}
        for at, (attribute, other) in enumerate(zip(node.attribute, twin.attribute, strict=True)):
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                raise _UnexplainedError(f"{node.name} has a graph of its own.")
            if attribute != other:
                sizes[at] = self._sizes(attribute.name, numbers_of(attribute), numbers_of(other), near)
        return sizes

    def _sizes(self, what: str, whole: NDArray[Any], pruned: NDArray[Any], near: Sequence[Atoms]) -> Numbers:
        """The numbers that differ, each with the one axis that explains it."""
        if whole.shape != pruned.shape or not whole.size or whole.dtype != np.int64:
            raise _UnexplainedError(f"{what} is no size, and differs in the pruned network.")
        pairs = enumerate(zip(whole.ravel().tolist(), pruned.ravel().tolist(), strict=True))
        return Numbers({at: self._axis(what, sizes, near) for at, sizes in pairs if sizes[0] != sizes[1]})

    def _axis(self, what: str, sizes: tuple[int, int], near: Sequence[Atoms]) -> Atoms:
        """The axis that a size belongs to: one near it in the same proportion, of these sizes, or of a part of them."""
        whole, pruned = sizes
        proportional = (each for each in self._axes if whole % len(each) == 0)
        for candidates in (near, (each for each in self._axes if len(each) == whole), proportional):
            fitting = [each for each in candidates if whole * self._sizes_of(each)[1] == pruned * len(each)]
            if len(set(map(self._shares, fitting))) > 1:
                raise _UnexplainedError(f"{what} may be the size of several axes.")
            if fitting:
                return fitting[0]
        raise _UnexplainedError(f"{what} is the size of no axis.")

    def _shares(self, atoms: Atoms) -> bytes:
        """The share of an axis that each unit of each group has, which tells its size at any widths."""
        owners = self._coupling.group_of_root[self._coupling.roots[atoms]]
        return (np.bincount(owners + 1, minlength=len(self._coupling.groups) + 1) / len(atoms)).round(9).tobytes()

    def _sizes_of(self, atoms: Atoms) -> tuple[int, int]:
        return len(atoms), int(self._kept[atoms].sum())

    def _reading(self, cut: Slices | Numbers) -> tuple[Any, ...]:
        """What a cut takes a constant for: equal ones of one constant are one, as readers of one weight have it."""
        if isinstance(cut, Slices):
            return tuple(map(self._roots, cut.axes))
        return tuple((at, self._shares(atoms)) for at, atoms in cut.axes.items())

    def _roots(self, atoms: Atoms | None) -> bytes:
        """What an axis is cut by."""
        return b"" if atoms is None else self._coupling.roots[atoms].tobytes()

    @cached_property
    def _axes(self) -> list[Atoms]:
        """The axes of the program's tensors and values that shrink; of those that are cut alike, one."""
        labels = (label for value in self._coupling.values.values() for label in axes(value))
        of_values = (channels.atoms for label in labels for channels in parts(label))
        numbers: dict[bytes, Atoms] = {}
        for atoms in itertools.chain(self._coupling.slots.values(), of_values):
            if not self._kept[atoms].all():
                numbers.setdefault(self._roots(atoms), atoms)
        return list(numbers.values())


def _sliced(cuts: Mapping[int, Slices | Numbers]) -> list[Atoms]:
    """The axes that constants are cut along."""
    slices = (cut for cut in cuts.values() if isinstance(cut, Slices))
    return [atoms for each in slices for atoms in each.axes if atoms is not None]


def _kind(node: NodeProto) -> tuple[Any, ...]:
    attributes = tuple((attribute.name, attribute.type) for attribute in node.attribute)
    return node.op_type, node.domain, len(node.input), len(node.output), attributes


def _frame(model: ModelProto) -> bytes:
    """What two models have in common but for nodes, constants and shapes of values."""
    frame = ModelProto()
    frame.CopyFrom(model)
    for field in ("node", "initializer", "value_info"):
        frame.graph.ClearField(field)
    content: bytes = frame.SerializeToString(deterministic=True)
    return content
