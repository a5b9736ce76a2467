"""Read 2:4 sparsity off an exported ONNX model, layer by layer, in the layout that TensorRT reads.

The groups of 4 run along the dimension that is summed over: axis 1 of a convolution's weight, the rows of a matrix
product's second operand.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from prunec.passes.boundary import reading
from prunec.passes.fours import at_most_two_of_four
from prunec.passes.two_four_words import TwoFourState, two_four_state

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Input channels and filters from which 2:4 usually pays.
_WIDE = 256
_QUANTISATION = ("DequantizeLinear", "QuantizeLinear")
_LOOK_THROUGH = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", *_QUANTISATION)
#: ONNX Runtime's own domain, whose quantisation is that of ONNX.
_ONNX_RUNTIME = "com.microsoft"


@dataclass(frozen=True)
class LayerSparsity:
    """2:4 sparsity of one weighted operator of an ONNX model.

    Attributes:
        name: Name of the ONNX node.
        layer: Path of the module that owns the weight; the node's name where the weight is computed.
        weight: Name of the ONNX initializer; "" where the weight is computed.
        operator: Type of the ONNX node.
        shape: Shape of the weight as the operator sees it.
        axis: Axis that is summed over; the groups of 4 run along it.
        input_channels: Number of input channels of one group of the convolution; 0 where the weight is computed.
        output_channels: Number of output channels; 0 where the weight is computed.
        groups: Groups of the convolution; 1 for other operators.
        dtype: Data type of the weight.
        eligible: Whether the operator can carry 2:4.
        valid: Whether its weight holds 2:4.
        reason: Why it isn't eligible or valid; empty where it is.
        likely_to_gain: Whether sparse kernels are likely to be faster than dense ones; False where not eligible.
        gain_rule: The rule that says so, in words; empty where not eligible.
        zero_fraction: Share of zero weights.
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


@dataclass(frozen=True)
class _Weight:
    """A constant operand: the initializer that it comes from, its values as the operator sees them, and their type.

    The type of weights that are quantised is that of the whole numbers that stand for them.
    """

    name: str
    values: NDArray[Any]
    dtype: str


@dataclass(frozen=True)
class _Values:
    """Constants of a graph by name, and the nodes that yield its other values."""

    constants: Mapping[str, onnx.TensorProto]
    makers: Mapping[str, onnx.NodeProto]

    def weight(self, name: str) -> _Weight | None:
        """A value that comes from a constant through casts, quantisation and transposition; None for any other."""
        if name in self.constants:
            values = numpy_helper.to_array(self.constants[name])
            return _Weight(name, values, str(values.dtype))
        maker = self.makers.get(name)
        if maker is None or maker.op_type not in _LOOK_THROUGH or maker.domain not in ("", _ONNX_RUNTIME):
            return None
        source, others = self.weight(maker.input[0]), [self._parameter(other) for other in maker.input[1:] if other]
        if source is None or not all(others):
            return None
        given = {maker.input[0]: source.values}
        given |= {name: o.values for name, o in zip(filter(None, maker.input[1:]), others, strict=True) if o}
        if maker.op_type in _QUANTISATION:
            axis = next((attribute.i for attribute in maker.attribute if attribute.name == "axis"), 1)
            _check_scales(source.values.shape, given[maker.input[1]].shape, axis)
        (values,) = ReferenceEvaluator(_of_onnx(maker)).run(None, given)
        is_quantised = maker.op_type == "DequantizeLinear" or source.dtype != str(source.values.dtype)
        return _Weight(source.name, values, source.dtype if is_quantised else str(values.dtype))

    def _parameter(self, name: str) -> _Weight | None:
        """A scale, zero point or shape: a constant, or one that is cast; None for any other value."""
        maker = self.makers.get(name)
        is_cast = maker is not None and maker.op_type == "Cast" and maker.input[0] in self.constants
        return self.weight(name) if is_cast or name in self.constants else None


def check_sparsity(path: Path) -> list[LayerSparsity]:
    """Every convolution and matrix product of an ONNX file with its 2:4 state, in the order of the graph.

    Raises:
        InputError: The file can't be read.
    """
    with reading(f"The ONNX file {path}"):
        return _layers(onnx.load(path).graph)


def _layers(graph: onnx.GraphProto) -> list[LayerSparsity]:
    # Builders treat the values of Constant nodes like initializers.
    nodes = {node.output[0]: _constant(node) for node in graph.node if node.op_type == "Constant"}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {name: tensor for name, tensor in nodes.items() if tensor is not None}
    values = _Values(constants, {output: node for node in graph.node for output in node.output})
    return [_check(node, values) for node in graph.node if node.op_type in _WEIGHTED]


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node; None for one that is no dense tensor of numbers."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
            kind = np.float32 if "float" in attribute.name else np.int64
            return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(attribute), kind))
    return None


def _of_onnx(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node of ONNX Runtime's domain as ONNX's own of that name."""
    own = onnx.NodeProto()
    own.CopyFrom(node)
    own.domain = ""
    return own


def weight_states(layers: Sequence[LayerSparsity]) -> list[TwoFourState]:
    """The 2:4 state of every weight, once: products of two activations are no layers, and hold none."""
    by_weight: dict[str, LayerSparsity] = {}
    for layer in layers:
        known = by_weight.get(layer.weight)
        if layer.weight and (known is None or known.eligible):  # a weight used twice must be eligible in both uses
            by_weight[layer.weight] = layer
    return [two_four_state(layer.eligible, layer.valid) for layer in by_weight.values()]


def likely_to_gain(operator: str, shape: tuple[int, ...], axis: int, dtype: str) -> tuple[bool, str]:
    """Whether a layer's sparse kernels are likely to win, and the rule that says so.

    The rule of thumb of TensorRT's maintainers: wide layers gain, and kernels larger than 1x1 multiply the channels
    that are summed over (TensorRT issues 3849 and 4065). It is a prediction: only the device shows what wins.

    Args:
        operator: "Conv", "Gemm" or "MatMul".
        shape: Shape of the weight as the operator sees it.
        axis: Axis that is summed over.
        dtype: Data type of the weight, as NumPy names it.
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


def _check(node: onnx.NodeProto, values: _Values) -> LayerSparsity:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    groups = int(attributes.get("group", 1))
    operand, axis = _operand(node, attributes, values)
    if operand is None:
        reason = "the weight is computed, not a constant"
        unknown = (False, False, reason, False, "", 0.0)
        return LayerSparsity(node.name, node.name, "", node.op_type, (), 0, 0, 0, groups, "", *unknown)
    name, weight, dtype = operand.name, operand.values, operand.dtype
    shape = weight.shape
    reason = _ineligible(node.op_type, groups, shape[axis])
    likely, rule = (False, "") if reason else likely_to_gain(node.op_type, shape, axis, dtype)
    valid = not reason and at_most_two_of_four(weight, axis)
    return LayerSparsity(
        name=node.name,
        layer=name.rpartition(".")[0] or name,
        weight=name,
        operator=node.op_type,
        shape=shape,
        axis=axis,
        input_channels=shape[axis],
        output_channels=_output_channels(node.op_type, shape, axis),
        groups=groups,
        dtype=dtype,
        eligible=not reason,
        valid=valid,
        reason=reason or ("" if valid else "some 4 consecutive input channels hold more than 2 weights"),
        likely_to_gain=likely,
        gain_rule=rule,
        zero_fraction=float((weight == 0).mean()) if weight.size else 0.0,
    )


def _operand(node: onnx.NodeProto, attributes: Mapping[str, Any], values: _Values) -> tuple[_Weight | None, int]:
    """The operand that is a constant, either one of a matrix product, and the axis summed over."""
    weight = values.weight(node.input[1])
    if node.op_type not in ("Gemm", "MatMul"):
        return weight, 1 if node.op_type == "Conv" else 0
    if weight is not None:
        transposed = attributes.get("transB", 0)
        return weight, (1 if transposed else 0) if node.op_type == "Gemm" else max(0, weight.values.ndim - 2)
    weight = values.weight(node.input[0])
    return weight, 0 if weight is None or attributes.get("transA", 0) else max(0, weight.values.ndim - 1)


def _check_scales(shape: tuple[int, ...], scales: tuple[int, ...], axis: int) -> None:
    """Refuse scales that are neither one, nor one for each slice of the axis or each block, before they are spread."""
    blocks = len(scales) == len(shape) and all(0 < a <= b for a, b in zip(scales, shape, strict=True))
    if not (math.prod(scales) == 1 or scales == (shape[axis],) or blocks):
        raise ValueError(f"scales of shape {list(scales)} for a weight of shape {list(shape)}")


def _ineligible(operator: str, groups: int, channels: int) -> str:
    if operator == "ConvTranspose":
        return "transposed convolutions have no sparse kernels"
    if groups != 1:
        return f"grouped convolution ({groups} groups)"
    return f"{channels} input channels are no multiple of 4" if channels % 4 else ""
