"""Read 2:4 sparsity off an exported ONNX model, layer by layer, in the layout that TensorRT reads.

The groups of 4 run along the dimension that is summed over: axis 1 of a convolution's weight, the rows of a matrix
product's second operand.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from prunec.passes.errors import InputError, first_line

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
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
        groups: of the convolution; 1 elsewhere.
        dtype: of the weight.
        eligible: whether the operator can carry 2:4.
        valid: whether it does.
        reason: why not.
        zero_fraction: share of zero weights.
    """

    name: str
    layer: str
    weight: str
    operator: str
    shape: tuple[int, ...]
    axis: int
    groups: int
    dtype: str
    eligible: bool
    valid: bool
    reason: str
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
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    return [_check(node, constants, makers) for node in graph.node if node.op_type in _WEIGHTED]


def is_two_four(weight: NDArray[Any], axis: int) -> bool:
    """Whether every 4 consecutive weights along an axis hold at least 2 zeros."""
    rows = np.moveaxis(weight, axis, -1)
    return bool((np.count_nonzero(rows.reshape(*rows.shape[:-1], -1, 4), axis=-1) <= 2).all())


def _check(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], makers: dict[str, onnx.NodeProto]
) -> LayerSparsity:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    groups = int(attributes.get("group", 1))
    name, weight = _weight(node.input[1], constants, makers)
    if weight is None:
        reason = "the weight is computed, not a constant"
        return LayerSparsity(node.name, node.name, "", node.op_type, (), 0, groups, "", False, False, reason, 0.0)
    axis = _summed_axis(node.op_type, bool(attributes.get("transB", 0)), weight.ndim)
    reason = _ineligible(node.op_type, groups, weight, axis)
    valid = not reason and is_two_four(weight, axis)
    return LayerSparsity(
        name=node.name,
        layer=name.rpartition(".")[0] or name,
        weight=name,
        operator=node.op_type,
        shape=weight.shape,
        axis=axis,
        groups=groups,
        dtype=str(weight.dtype),
        eligible=not reason,
        valid=valid,
        reason=reason or ("" if valid else "some 4 consecutive input channels hold more than 2 weights"),
        zero_fraction=float((weight == 0).mean()) if weight.size else 0.0,
    )


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
