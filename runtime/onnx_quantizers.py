"""Quantizers of a program as pairs of QuantizeLinear and DequantizeLinear, and weights as numbers of their grids."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxscript import opset18 as op
from onnxscript import opset19 as op19
from onnxscript import opset21 as op21

from prunec.passes.own_operators import (
    FLOAT8_LIMIT,
    FLOAT8_PER_CHANNEL,
    FLOAT8_PER_TENSOR,
    INT4_BLOCKS,
    INT4_LEAST,
    INT4_MOST,
)
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import quantizers, with_weights_computed

_WHOLE = {-128: np.int8, 0: np.uint8}
_FLOAT8 = TensorProto.FLOAT8E4M3FN


def _per_tensor(x: Any, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Any:
    """``fake_quantize_per_tensor_affine`` in ONNX."""
    zero = op.Constant(value=numpy_helper.from_array(np.array(zero_point, dtype=_WHOLE[quant_min])))
    step = op.Constant(value=numpy_helper.from_array(np.array(scale, dtype=np.float32)))
    return op.DequantizeLinear(op.QuantizeLinear(x, step, zero), step, zero)


def _per_channel(x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> Any:
    """``fake_quantize_per_channel_affine`` in ONNX."""
    zero = op.Cast(zero_point, to=helper.np_dtype_to_tensor_dtype(np.dtype(_WHOLE[quant_min])))
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, axis=axis), scale, zero, axis=axis)


def _float8_per_tensor(x: Any, scale: float) -> Any:
    """``fake_quantize_float8_per_tensor`` in ONNX."""
    zero = op19.Constant(value=helper.make_tensor("", _FLOAT8, (), [0.0]))
    step = op19.Constant(value=numpy_helper.from_array(np.array(scale, dtype=np.float32)))
    return op19.DequantizeLinear(op19.QuantizeLinear(x, step, zero), step, zero)


def _float8_per_channel(x: Any, scale: Any, axis: int) -> Any:
    """``fake_quantize_float8_per_channel`` in ONNX."""
    channels = int(scale.shape[0])
    zero = op19.Constant(value=helper.make_tensor("", _FLOAT8, (channels,), [0.0] * channels))
    return op19.DequantizeLinear(op19.QuantizeLinear(x, scale, zero, axis=axis), scale, zero, axis=axis)


def _int4_blocks(x: Any, scale: Any, axis: int) -> Any:
    """``fake_quantize_int4_blocks`` in ONNX."""
    blocks = {"axis": axis, "block_size": int(x.shape[axis]) // int(scale.shape[axis])}
    return op21.DequantizeLinear(
        op21.QuantizeLinear(x, scale, output_dtype=TensorProto.INT4, **blocks), scale, **blocks
    )


def opset_of(program: Program) -> int:
    """The opset of a program's file: the first that has blocks where there are any."""
    return 21 if any(each.precision == "int4" for each in quantizers(program.graph)) else 20


#: Translations for `torch.onnx.export`.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.fake_quantize_per_tensor_affine.default: _per_tensor,
    torch.ops.aten.fake_quantize_per_channel_affine.default: _per_channel,
    FLOAT8_PER_TENSOR: _float8_per_tensor,
    FLOAT8_PER_CHANNEL: _float8_per_channel,
    INT4_BLOCKS: _int4_blocks,
}


def store_numbers(model: onnx.ModelProto) -> None:
    """Keep every constant that is quantized as the numbers of its grid, in place, under its own name.

    A weight that is transposed after its grid is stored transposed: kernels are chosen where nothing stands between.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    values = {node.output[0]: node.attribute[0] for node in graph.node if node.op_type == "Constant"}
    constants |= {name: value.t for name, value in values.items() if value.HasField("t")}
    _fold(graph, constants, "Cast", _cast)
    _fold(graph, constants, "QuantizeLinear", _quantized)
    _transpose(graph, constants)
    _drop_unread(graph)


def _fold(
    graph: onnx.GraphProto,
    constants: dict[str, onnx.TensorProto],
    operator: str,
    value: Callable[[onnx.NodeProto, list[NDArray[Any]]], NDArray[Any]],
) -> None:
    """Replace the nodes of an operator that read constants alone, and that quantizers need, by their values."""
    wanted = {name for node in graph.node if "Linear" in node.op_type for name in node.input}
    for node in [each for each in graph.node if each.op_type == operator]:
        if node.output[0] in wanted and all(name in constants for name in node.input):
            tensor = numpy_helper.from_array(
                value(node, [numpy_helper.to_array(constants[name]) for name in node.input]), node.output[0]
            )
            graph.initializer.append(tensor)
            constants[tensor.name] = graph.initializer[-1]
            graph.node.remove(node)
            if operator == "QuantizeLinear":
                _take_name(graph, constants, tensor.name, node.input[0])


def _cast(node: onnx.NodeProto, inputs: list[NDArray[Any]]) -> NDArray[Any]:
    cast: NDArray[Any] = inputs[0].astype(helper.tensor_dtype_to_np_dtype(node.attribute[0].i))
    return cast


def _quantized(node: onnx.NodeProto, inputs: list[NDArray[Any]]) -> NDArray[Any]:
    if len(inputs) == 2:
        return _quantized_blocks(node, *inputs)
    x, scale, zero = inputs
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if scale.ndim:
        shape = [-1 if dim == axis else 1 for dim in range(x.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    if zero.dtype == ml_dtypes.float8_e4m3fn:
        float8: NDArray[Any] = np.clip(x / scale, -FLOAT8_LIMIT, FLOAT8_LIMIT).astype(zero.dtype)
        return float8
    limits = np.iinfo(zero.dtype)
    # As torch rounds, which multiplies by the inverse in float32: what lies between two steps goes to the same one.
    whole = np.rint(x.astype(np.float32) * (np.float32(1) / scale.astype(np.float32))) + zero
    stored: NDArray[Any] = np.clip(whole, limits.min, limits.max).astype(zero.dtype)
    return stored


def _quantized_blocks(node: onnx.NodeProto, x: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """A weight as numbers of INT4, its scales one for each block along an axis."""
    axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
    whole = np.rint(x / np.repeat(scale, x.shape[axis] // scale.shape[axis], axis))
    int4: NDArray[Any] = np.clip(whole, INT4_LEAST, INT4_MOST).astype(ml_dtypes.int4)
    return int4


def _take_name(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto], stored: str, name: str) -> None:
    """Give whole numbers the name of the weight that they stand for, where nothing else reads that."""
    readers = [node for node in graph.node if name in node.input]
    if readers or name not in {tensor.name for tensor in graph.initializer}:
        return
    for tensor in list(graph.initializer):
        if tensor.name == name:
            graph.initializer.remove(tensor)
    next(tensor for tensor in graph.initializer if tensor.name == stored).name = name
    constants[name] = constants.pop(stored)
    for node in graph.node:
        for index, read in enumerate(node.input):
            node.input[index] = name if read == stored else read


def _transpose(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Move transpositions before the dequantization of constants, into them."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in [each for each in graph.node if each.op_type == "DequantizeLinear" and each.input[0] in stored]:
        following = readers.get(node.output[0], [])
        if len(following) != 1 or following[0].op_type != "Transpose" or len(readers[node.input[0]]) != 1:
            continue
        moved, values = following[0], numpy_helper.to_array(stored[node.input[0]])
        order = next((list(a.ints) for a in moved.attribute if a.name == "perm"), list(range(values.ndim))[::-1])
        stored[node.input[0]].CopyFrom(numpy_helper.from_array(values.transpose(order).copy(), node.input[0]))
        scale = stored.get(node.input[1])
        if scale is not None and len(scale.dims) > 1:  # of blocks; no other weight reads it
            moved_scale = numpy_helper.to_array(scale).transpose(order).copy()
            scale.CopyFrom(numpy_helper.from_array(moved_scale, scale.name))
        for attribute in node.attribute:
            if attribute.name == "axis":
                attribute.i = order.index(attribute.i)
        node.output[0] = moved.output[0]
        graph.node.remove(moved)


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in list(graph.initializer):
        if tensor.name not in read:
            graph.initializer.remove(tensor)
    known = {name for node in graph.node for name in node.output}
    for info in list(graph.value_info):
        if info.name not in known:
            graph.value_info.remove(info)


def weights_on_grids(program: Program) -> dict[str, NDArray[Any]]:
    """Every weight that a program puts on a grid, as it is before, in float64; computed ones by their nodes' names."""
    stored = with_weights_computed(program)
    tensors = stored.tensors()
    names = {str(each.source.target) for each in quantizers(stored.graph) if each.source.op == "get_attr"}
    return {name: tensors[name].detach().double().numpy() for name in sorted(names)}


def rounding_in_steps(model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The largest distance of each weight from the numbers that stand for it, in steps of their grids, by its name.

    The step of numbers in floating point is the distance to the next larger magnitude. A weight whose name no numbers
    have, as of those that are computed, is held against all that have none of the names, and such numbers against all
    weights; what is nearest counts. Where there is nothing of its shape, the distance is infinite.

    Args:
        model: A model as `store_numbers` leaves it.
        weights: The weights in floating point by name; axes may be stored in another order where there are 3 at most.
    """
    numbers, named = {each.name: each for each in _stored(model.graph)}, dict[str, float]()
    left = {name: each for name, each in numbers.items() if name not in weights}
    for name, weight in weights.items():
        candidates = [numbers[name]] if name in numbers else list(left.values())
        named[name] = min((each.distance(weight) for each in candidates), default=np.inf)
    nearest = {name: min(map(each.distance, weights.values()), default=np.inf) for name, each in left.items()}
    return named | nearest


@dataclass(frozen=True, eq=False)
class _Stored:
    """Numbers of a grid that stand for a weight in a file.

    Attributes:
        name: The name of the tensor that holds them.
        numbers: Their values, float64.
        scale: The scale of each, in a shape that they can be multiplied with.
        step: The distance to the next number, in scales, likewise.
    """

    name: str
    numbers: NDArray[np.float64]
    scale: NDArray[Any]
    step: NDArray[np.float64]

    def distance(self, weight: NDArray[Any]) -> float:
        """The largest distance of a weight from them, in steps; infinite where it has another shape."""
        axes = tuple(range(weight.ndim))
        orders = permutations(axes) if weight.ndim <= 3 else iter([axes])
        turned = (weight.transpose(order) for order in orders)
        return min((self._distance(each) for each in turned if each.shape == self.numbers.shape), default=np.inf)

    def _distance(self, weight: NDArray[Any]) -> float:
        with np.errstate(all="ignore"):  # scales of files that were damaged may be anything
            return float((np.abs(weight / self.scale - self.numbers) / self.step).max(initial=0))


def _stored(graph: onnx.GraphProto) -> Iterator[_Stored]:
    """The weights of a file that stand in it as numbers of grids."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        stored, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
        axis, numbers = next((a.i for a in node.attribute if a.name == "axis"), 1), stored.astype(np.float64)
        if scale.ndim > 1:
            scale = np.repeat(scale, numbers.shape[axis] // scale.shape[axis], axis)
        elif scale.ndim:
            scale = scale.reshape([-1 if dim == axis else 1 for dim in range(numbers.ndim)])
        is_float8 = stored.dtype == ml_dtypes.float8_e4m3fn
        step = _float8_steps(numbers) if is_float8 else np.ones((), np.float64)
        yield _Stored(node.input[0], numbers, scale.astype(np.float64), step)


def _float8_steps(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of numbers of E4M3 to the next larger magnitude; of those below the normal ones it is equal."""
    exponents = np.frexp(np.maximum(np.abs(numbers), 2.0**-6))[1]
    steps: NDArray[np.float64] = np.ldexp(1.0, exponents - 4)
    return steps
