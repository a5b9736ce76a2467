"""Read 2:4 sparsity off an exported ONNX model, layer by layer, in the layout that TensorRT reads.

The groups of 4 run along the dimension that is summed over: axis 1 of a convolution's weight, the rows of a matrix
product's second operand.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from prunec.passes.errors import InputError, first_line

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Input channels and filters from which 2:4 usually pays.
_WIDE = 256
_LOOK_THROUGH = ("Cast", "DequantizeLinear", "QuantizeLinear", "Identity", "Transpose")


@dataclass(frozen=True)
class LayerSparsity:
    """2:4 of one weighted operator of an ONNX model.

    Attributes:
        name: of the ONNX node.
        layer: path of the module that owns the weight; the node's name where the weight is computed.
        weight: name of the ONNX initializer; "" where the weight is computed.
        operator: ONNX operator.
        shape: of the weight as the operator sees it.
        axis: summed over, the one that the groups of 4 run along.
        input_channels: C, those in one group; 0 where the weight is computed, like the next.
        output_channels: K.
        groups: of the convolution; 1 elsewhere.
        dtype: of the weight.
        eligible: whether the operator can carry 2:4.
        valid: whether it does.
        reason: why not.
        likely_to_gain: whether sparse kernels are likely to be faster than dense ones; False where not eligible.
        gain_rule: the rule behind that, in words; empty where not eligible.
        zero_fraction: share of zero weights.
    """

    name: str
    layer: str
    weight: str
    operator: str
    shape: tuple[int, ...]
    axis: int
    input_channels: int
    output_channels: int
    groups: int
    dtype: str
    eligible: bool
    valid: bool
    reason: str
    likely_to_gain: bool
    gain_rule: str
    zero_fraction: float


def check_sparsity(path: Path) -> list[LayerSparsity]:
    """Every convolution and matrix product with its 2:4 state, in the order of the graph.

    Args:
        path: an ONNX file.

    Raises:
        InputError: it can't be read.
    """
    try:
        graph = onnx.load(path).graph
    except Exception as error:
        raise InputError(f"{path} can't be read as an ONNX file: {first_line(error)}.") from error
    constants = {tensor.name: tensor for tensor in graph.initializer} | _constant_nodes(graph)
    makers = {output: node for node in graph.node for output in node.output}
    return [_check(node, constants, makers) for node in graph.node if node.op_type in _WEIGHTED]


def is_two_four(weight: NDArray[Any], axis: int) -> bool:
    """Whether every 4 consecutive weights along an axis hold at least 2 zeros."""
    rows = np.moveaxis(weight, axis, -1)
    fours = rows.reshape(*rows.shape[:-1], rows.shape[-1] // 4, 4)
    return bool((np.count_nonzero(fours, axis=-1) <= 2).all())


def likely_to_gain(operator: str, shape: tuple[int, ...], axis: int, dtype: str) -> tuple[bool, str]:
    """Whether a layer's sparse kernels are likely to win, and the rule that says so.

    The rule of thumb of TensorRT's maintainers: wide layers gain, and kernels larger than 1x1 multiply the channels
    that are summed over (TensorRT issues 3849 and 4065). A prediction; what wins is measured on the device.

    Args:
        operator: "Conv", "Gemm" or "MatMul".
        shape: of the weight as the operator sees it.
        axis: summed over.
        dtype: of the weight.
    """
    if dtype == "float32":
        return False, "sparse kernels are of 16 and 8 bits, the weight has 32"
    channels, filters = shape[axis], _output_channels(operator, shape, axis)
    positions = math.prod(shape[2:]) if operator == "Conv" else 1
    summed = f"C {channels}" + (f" times {positions} kernel positions" if positions > 1 else "")
    narrowest = _WIDE if positions == 1 else _WIDE // 4
    wide = channels * positions >= _WIDE and filters >= narrowest
    verdict = "are at least" if wide else "are not both at least"
    return wide, f"{summed} and K {filters} {verdict} {_WIDE} and {narrowest}"


def _output_channels(operator: str, shape: tuple[int, ...], axis: int) -> int:
    if operator == "Conv":
        return shape[0]
    if len(shape) < 2:
        return 1
    if operator == "ConvTranspose":
        return shape[1]
    return shape[-1] if axis != len(shape) - 1 else shape[-2]


def _check(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], makers: dict[str, onnx.NodeProto]
) -> LayerSparsity:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    groups = int(attributes.get("group", 1))
    name, weight, axis = _operand(node, attributes, constants, makers)
    if weight is None:
        reason = "the weight is computed, not a constant"
        unknown = (False, False, reason, False, "", 0.0)
        return LayerSparsity(node.name, node.name, "", node.op_type, (), 0, 0, 0, groups, "", *unknown)
    reason = _ineligible(node.op_type, groups, weight, axis)
    valid = not reason and is_two_four(weight, axis)
    likely, rule = (False, "") if reason else likely_to_gain(node.op_type, weight.shape, axis, str(weight.dtype))
    return LayerSparsity(
        name=node.name,
        layer=name.rpartition(".")[0] or name,
        weight=name,
        operator=node.op_type,
        shape=weight.shape,
        axis=axis,
        input_channels=weight.shape[axis],
        output_channels=_output_channels(node.op_type, weight.shape, axis),
        groups=groups,
        dtype=str(weight.dtype),
        eligible=not reason,
        valid=valid,
        reason=reason or ("" if valid else "some 4 consecutive input channels hold more than 2 weights"),
        likely_to_gain=likely,
        gain_rule=rule,
        zero_fraction=float((weight == 0).mean()) if weight.size else 0.0,
    )


def _constant_nodes(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Values of Constant nodes by the name of their output; builders treat them like initializers."""
    found = {}
    for node in graph.node:
        value = next((a for a in node.attribute if a.name == "value" and a.HasField("t")), None)
        if node.op_type == "Constant" and value is not None:
            found[node.output[0]] = value.t
    return found


def _operand(
    node: onnx.NodeProto,
    attributes: Mapping[str, Any],
    constants: dict[str, onnx.TensorProto],
    makers: dict[str, onnx.NodeProto],
) -> tuple[str, NDArray[Any] | None, int]:
    """Name and value of the operand that is a constant, and its axis that is summed over; of matrix products either."""
    name, weight = _weight(node.input[1], constants, makers)
    if weight is not None or node.op_type not in ("Gemm", "MatMul"):
        rank = 0 if weight is None else weight.ndim
        return name, weight, _summed_axis(node.op_type, bool(attributes.get("transB", 0)), rank)
    name, weight = _weight(node.input[0], constants, makers)
    rank = 0 if weight is None else weight.ndim
    return name, weight, 0 if attributes.get("transA", 0) else max(0, rank - 1)


def _weight(
    name: str, constants: dict[str, onnx.TensorProto], makers: dict[str, onnx.NodeProto]
) -> tuple[str, NDArray[Any] | None]:
    """The constant that a weight input comes from, seen through casts, quantisation and transposition."""
    if name in constants:
        return name, numpy_helper.to_array(constants[name])
    maker = makers.get(name)
    if maker is None or maker.op_type not in _LOOK_THROUGH:
        return name, None
    source, value = _weight(maker.input[0], constants, makers)
    if value is not None and maker.op_type == "Transpose":
        order = next((a.ints for a in maker.attribute if a.name == "perm"), range(value.ndim)[::-1])
        value = value.transpose(tuple(order))
    return source, value


def _summed_axis(operator: str, transposed: bool, rank: int) -> int:
    if operator == "MatMul":
        return max(0, rank - 2)
    if operator == "Gemm":
        return 1 if transposed else 0
    return 1 if operator == "Conv" else 0


def _ineligible(operator: str, groups: int, weight: NDArray[Any], axis: int) -> str:
    channels = weight.shape[axis]
    if operator == "ConvTranspose":
        return "transposed convolutions have no sparse kernels"
    if groups != 1:
        return f"grouped convolution ({groups} groups)"
    if channels % 4:
        return f"{channels} input channels are no multiple of 4"
    return ""
