"""ONNX files of pruned networks, cut out of the file of the whole network: an export takes seconds, a cut milliseconds.

`onnx_widths` finds the places of a file that hold widths.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper, shape_inference

from prunec.passes.coupling import Coupling
from prunec.passes.labels import Atoms
from prunec.passes.rewrite import Removed

#: Something that a node has: positions of the node, and of the input or the attribute.
Place = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Slices:
    """A constant of which slices go: the atoms of each dimension, None where it stays whole."""

    axes: tuple[Atoms | None, ...]

    def of(self, values: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[Any]:
        """What stays of the whole constant where these atoms do, bool (atoms,)."""
        for dim, atoms in enumerate(self.axes):
            if atoms is not None:
                values = np.compress(kept[atoms], values, dim)
        return values


@dataclass(frozen=True, eq=False)
class Numbers:
    """Whole numbers some of which are sizes: by position the atoms of an axis in proportion to which it shrinks."""

    axes: Mapping[int, Atoms]

    def of(self, values: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[Any]:
        """The numbers where these atoms stay, bool (atoms,); ``values`` are those of the whole network."""
        numbers = values.copy()
        for position, atoms in self.axes.items():
            size, rest = divmod(int(values.flat[position]) * int(kept[atoms].sum()), len(atoms))
            assert not rest, "a size that is no whole number"
            numbers.flat[position] = size
        return numbers


@dataclass(frozen=True, eq=False)
class CuttableOnnx:
    """A whole network's model with the places where it holds widths.

    Attributes:
        model: The model.
        coupling: The analysis of its program.
        constants: What becomes of constants, by the place that reads them.
        attributes: What becomes of attributes.
    """

    model: ModelProto
    coupling: Coupling
    constants: Mapping[Place, Slices | Numbers]
    attributes: Mapping[Place, Numbers]

    def without(self, removed: Removed) -> ModelProto:
        """The model without these classes of atoms; nodes and values keep their names.

        Shapes of values are inferred anew: without them ONNX Runtime optimizes less than it does of an export.
        """
        model, kept = ModelProto(), ~removed[self.coupling.roots]
        model.CopyFrom(self._frame)
        graph, writer = model.graph, _Writer(model.graph, self._tensors, kept)
        for number, node in enumerate(graph.node):
            for at, name in enumerate(node.input):
                if name in self._tensors:
                    node.input[at] = writer.write(name, self.constants.get((number, at)))
        for (number, at), numbers in self.attributes.items():
            attribute = graph.node[number].attribute[at]
            set_numbers(attribute, numbers.of(numbers_of(attribute), kept))
        for value in graph.output:
            if value.name in self._tensors:
                writer.write(value.name, None)
        return shape_inference.infer_shapes(model, data_prop=True)

    @cached_property
    def _frame(self) -> ModelProto:
        """The model without its constants, and without shapes of values, which are those of the whole network."""
        frame = ModelProto()
        frame.CopyFrom(self.model)
        frame.graph.ClearField("initializer")
        frame.graph.ClearField("value_info")
        return frame

    @cached_property
    def _tensors(self) -> dict[str, TensorProto]:
        return {tensor.name: tensor for tensor in self.model.graph.initializer}


class _Writer:
    """Writes into a graph what becomes of constants, each once."""

    def __init__(self, graph: GraphProto, tensors: Mapping[str, TensorProto], kept: NDArray[np.bool_]) -> None:
        self._graph, self._tensors, self._kept = graph, tensors, kept
        self._written: dict[tuple[str, int], str] = {}

    def write(self, name: str, cut: Slices | Numbers | None) -> str:
        """Write one, whole or cut; its name, another one where its own has been taken by another cut."""
        key = name, id(cut)
        if key not in self._written:
            tensor, taken = self._tensors[name], sum(of == name for of, _ in self._written)
            if cut is not None:
                values = np.ascontiguousarray(cut.of(numpy_helper.to_array(tensor), self._kept))
                tensor = numpy_helper.from_array(values, name)
            self._graph.initializer.append(tensor)
            self._written[key] = self._graph.initializer[-1].name = f"{name}_cut_{taken}" if taken else name
        return self._written[key]


def numbers_of(attribute: AttributeProto) -> NDArray[np.int64]:
    """The whole numbers of an attribute, int64 (numbers,); none where it has others."""
    if attribute.type == AttributeProto.INT:
        return np.array([attribute.i], dtype=np.int64)
    return np.array(attribute.ints, dtype=np.int64)


def set_numbers(attribute: AttributeProto, numbers: NDArray[np.int64]) -> None:
    """Put whole numbers into an attribute that has as many."""
    if attribute.type == AttributeProto.INT:
        attribute.i = int(numbers[0])
    else:
        attribute.ints[:] = numbers.tolist()
