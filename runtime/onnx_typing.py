"""Retyping of a float32 ONNX graph to 16 bits, operator by operator, as ONNX's own schemas allow it. Imports no torch.

Which operators run in 16 bits follows torch's autocast (https://docs.pytorch.org/docs/stable/amp.html): products of
matrices do; what leaves the range of float16 on the way, such as powers and sums, runs in float32; any other runs in
the widest type of what it is given. Inputs and outputs of the graph stay float32.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.defs import OpSchema, SchemaError

from prunec.passes.errors import NumericMismatchError

_FLOAT = TensorProto.FLOAT
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"})
#: Recurrent operators carry rounding errors from step to step, and ONNX Runtime 1.32 dies of them in float16;
#: TensorRT-RTX 1.7 takes no Mish in bfloat16.
_WIDE = frozenset(
    {"Acos", "Asin", "Cosh", "CumProd", "CumSum", "Exp", "GRU", "LSTM", "Log", "Mish"}
    | {"Pow", "RNN", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"}
    | {"ReduceSum", "ReduceSumSquare", "Sinh", "Softplus", "Tan"}
)
#: Operators in which a large negative number is a factor, not a mask's minus infinity.
_FACTORS = frozenset({"Div", "Mul"})
#: Types that 16 bits hold, and those of whole numbers that they don't.
_NARROW = frozenset({TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_WHOLE = frozenset({TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT16, TensorProto.UINT32})
#: Stands for the element type of what is no tensor.
_NO_TENSOR = -1
#: Largest relative error of a single number, such as an epsilon, that counts as held.
_ROUNDED = 2**-8


@dataclass(frozen=True)
class HalfType:
    """A type of 16 bits: its name in ONNX's schemas, its number there, and its NumPy type."""

    name: str
    number: int
    dtype: np.dtype[np.generic]

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float(ml_dtypes.finfo(self.dtype).max)  # type: ignore[no-untyped-call]

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.generic]:
        """Float32 values in this type; finite ones stay finite."""
        limited = np.clip(values, -self.largest, self.largest)
        return np.where(np.isinf(values), values, limited).astype(self.dtype)

    def spans(self, values: NDArray[np.float32]) -> bool:
        """Whether no finite value is beyond the range."""
        return not (np.isfinite(values) & (np.abs(values) > self.largest)).any()

    def holds(self, values: NDArray[np.float32]) -> bool:
        """Whether no finite value is beyond the range, and a single number keeps its value."""
        if values.size != 1 or not np.isfinite(values).all():
            return self.spans(values)
        error = np.abs(self.rounded(values).astype(np.float32) - values)
        return bool((error <= np.abs(values) * _ROUNDED).all())


FLOAT16 = HalfType("float16", TensorProto.FLOAT16, np.dtype(np.float16))
BFLOAT16 = HalfType("bfloat16", TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16))


def retype(model: ModelProto, half: HalfType) -> None:
    """Change a float32 model in place to one that computes in 16 bits where ONNX and the range of numbers allow it.

    A number below the type's range, which masks have for minus infinity, becomes the lowest finite one. Any other that
    the type doesn't hold keeps its operator in float32. What is computed of whole numbers alone, as positions are,
    stays float32 up to where it meets activations.

    Raises:
        NumericMismatchError: A weight is beyond the type's range.
    """
    graph, typing = model.graph, _Typing(model, half)
    for node in graph.node:
        typing.take(node)
    for value in graph.output:
        typing.name(value.name, _FLOAT)
    kept = [tensor for tensor in graph.initializer if tensor.name not in typing.constants]
    retyped = [tensor for name in typing.constants for tensor in typing.versions(name)]
    computed = [value for value in graph.value_info if value.name not in typing.constants]
    for value in computed:
        if value.name in typing.narrow:
            value.type.tensor_type.elem_type = half.number
    for field, entries in (("node", typing.nodes), ("initializer", kept + retyped), ("value_info", computed)):
        graph.ClearField(field)
        getattr(graph, field).extend(entries)


class _Typing:
    """One pass over the nodes of a graph, in their order.

    Attributes:
        constants: The float32 constants by name.
        narrow: Names of the computed values that have 16 bits.
        nodes: The nodes so far, with casts between them.
    """

    def __init__(self, model: ModelProto, half: HalfType) -> None:
        graph = model.graph
        self.constants = {tensor.name: tensor for tensor in _constants(graph) if tensor.data_type == _FLOAT}
        self.narrow: set[str] = set()
        self.nodes: list[NodeProto] = []
        self._half = half
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        self._types: dict[str, int] = _element_types(model) | dict.fromkeys(self.constants, _FLOAT)
        self._ends = {value.name for value in (*graph.input, *graph.output)}
        self._names: dict[tuple[str, int], str] = {(value.name, _FLOAT): value.name for value in graph.input}
        self._given = set(self._ends)
        self._whole: set[str] = set()

    def take(self, node: NodeProto) -> None:
        """Add a node, with its inputs and outputs in the types that it takes; constants aren't nodes any more."""
        if node.output[0] in self.constants:
            return
        schema, runs_narrow, is_whole = self._schema(node), self._runs_narrow(node), self._is_whole(node)
        variables = self._retype_cast(node) if node.op_type == "Cast" else set()
        for index, name in enumerate(node.input):
            if self._is_float(name):
                variable = _variable(schema, index, self._half) if runs_narrow else ""
                variables.add(variable)
                node.input[index] = self.name(name, self._half.number if variable else _FLOAT)
        for graph in _subgraphs(node):
            self._feed(graph)
        for index, name in enumerate(node.output):
            if self._is_float(name):
                is_narrow = schema is not None and _formal(schema.outputs, index).type_str in variables
                self.narrow |= {name} if is_narrow else set()
                self._whole |= {name} if is_whole else set()
                number = self._half.number if is_narrow else _FLOAT
                node.output[index] = self._names[name, number] = self._free(name, number)
        self.nodes.append(node)

    def name(self, name: str, number: int) -> str:
        """The name that a value of the source has in a float type; it is cast to it where it has another."""
        if not self._is_float(name) or (name, number) in self._names:
            return self._names.get((name, number), name)
        result = self._free(name, number)
        if name not in self.constants:
            source = self._names[name, self._half.number if number == _FLOAT else _FLOAT]
            self.nodes.append(helper.make_node("Cast", [source], [result], f"cast_{result}", to=number))
        self._names[name, number] = result
        return result

    def versions(self, name: str) -> Iterator[TensorProto]:
        """A constant in each of the types in which it is used."""
        values = numpy_helper.to_array(self.constants[name])
        for number in (self._half.number, _FLOAT):
            if (name, number) in self._names:
                typed = values if number == _FLOAT else self._half.rounded(values)
                yield numpy_helper.from_array(typed, self._names[name, number])

    def _free(self, name: str, number: int) -> str:
        """A free name: the value's own, which is float32 at the ends of the graph, or one with the type added."""
        if number == _FLOAT and name in self._ends:
            return name
        kind = "float32" if number == _FLOAT else self._half.name
        free = name
        while free in self._given or (free != name and free in self._types):
            free = f"{free}_{kind}"
        self._given.add(free)
        return free

    def _is_float(self, name: str) -> bool:
        return bool(self._types.get(name) == _FLOAT)

    def _schema(self, node: NodeProto) -> OpSchema | None:
        """The schema of an operator; None where ONNX has none."""
        try:
            return onnx.defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
        except SchemaError:
            return None

    def _runs_narrow(self, node: NodeProto) -> bool:
        """Whether an operator runs in 16 bits, as far as its schema allows it."""
        floats = [name for name in node.input if self._is_float(name)]
        computed = [name for name in floats if name not in self.constants]
        constants = {name: numpy_helper.to_array(self.constants[name]) for name in floats if name in self.constants}
        if node.op_type in _PRODUCTS:
            self._check_weights(constants)
            return not computed or not self._whole.issuperset(computed)
        is_square = node.op_type == "Mul" and node.input[0] == node.input[1]
        others = [name for name in (*node.input, *node.output) if self._types.get(name) == _NO_TENSOR]
        if node.op_type in _WIDE or is_square or _adds_up(node) or others or any(_subgraphs(node)):
            return False
        lowest = -np.inf if node.op_type in _FACTORS else -self._half.largest
        return self.narrow.issuperset(computed) and all(
            self._half.holds(np.maximum(values, lowest)) for values in constants.values()
        )

    def _check_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        for name, values in weights.items():
            if not self._half.spans(values):
                largest = np.abs(values[np.isfinite(values)]).max()
                raise NumericMismatchError(
                    f"The weight {name} has the magnitude {largest:g}, which is beyond {self._half.name} "
                    f"({self._half.largest:g}).",
                    hint="Compile for fp32 or bf16.",
                )

    def _is_whole(self, node: NodeProto) -> bool:
        """Whether what an operator gives is computed of whole numbers alone, and no product of matrices."""
        computed = [name for name in node.input if self._is_float(name) and name not in self.constants]
        if node.op_type == "Cast" and not computed:
            return self._types.get(node.input[0]) in _WHOLE
        return node.op_type not in _PRODUCTS and bool(computed) and self._whole.issuperset(computed)

    def _retype_cast(self, node: NodeProto) -> set[str]:
        """Have a cast to float give 16 bits where those hold what is cast; the type variable that is those."""
        source = node.input[0]
        if not (self._is_float(node.output[0]) and (self._types.get(source) in _NARROW or source in self.narrow)):
            return set()
        target = next(attribute for attribute in node.attribute if attribute.name == "to")
        target.i = self._half.number
        return {"T2"}

    def _feed(self, graph: GraphProto) -> None:
        """Give a graph within a node, which stays as it is, the float32 values that it takes from around it."""
        for node in graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = self.name(name, _FLOAT)
            for inner in _subgraphs(node):
                self._feed(inner)


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    """Constants of a graph: initializers, and the values of nodes that are constants, under the nodes' names."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = TensorProto.FromString(node.attribute[0].t.SerializeToString())
            tensor.name = node.output[0]
            yield tensor


def _element_types(model: ModelProto) -> dict[str, int]:
    """The element type of every tensor by name, `_NO_TENSOR` for sequences and the like."""
    graph = model.graph
    weights = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer]
    bare = helper.make_model(  # without weights, whose values no type depends on: ONNX takes no more than 2 GB here
        helper.make_graph(graph.node, graph.name, [*graph.input, *weights], graph.output, value_info=graph.value_info),
        opset_imports=model.opset_import,
        functions=model.functions,
        ir_version=model.ir_version,
    )
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type or _NO_TENSOR for value in values}


def _adds_up(node: NodeProto) -> bool:
    """Whether a scatter sums or multiplies what meets at a place, which ONNX Runtime's CPUs don't do in float16."""
    return any(attribute.name == "reduction" and attribute.s in (b"add", b"mul") for attribute in node.attribute)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.HasField("g") else attribute.graphs)


def _formal(parameters: Sequence[OpSchema.FormalParameter], index: int) -> OpSchema.FormalParameter:
    """The parameter of a schema at a place; the last one may stand for any number."""
    return parameters[min(index, len(parameters) - 1)]


def _variable(schema: OpSchema | None, index: int, half: HalfType) -> str:
    """The type variable of an operator's input where it may be of 16 bits; empty where not."""
    formal = None if schema is None else _formal(schema.inputs, index)
    return formal.type_str if formal is not None and f"tensor({half.name})" in formal.types else ""
