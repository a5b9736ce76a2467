"""Typed forms of a float32 ONNX model for strongly typed builders: 16 bits inside, float32 inputs and outputs.

Imports no torch: the shape inference and the checker of ONNX are native code, which runs in a process of its own.
"""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from prunec.passes.errors import NumericMismatchError
from prunec.runtime.onnx_files import check_onnx, save_onnx, strip_metadata

_LARGEST_FLOAT16 = 65504
#: First opset in which convolutions and pools are declared for bfloat16.
_BF16_OPSET = 22
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def to_fp16(source: Path, destination: Path) -> None:
    """Write the float16-typed form of a float32 model.

    Raises:
        NumericMismatchError: A weight is beyond float16's range.
    """
    model = onnx.load(source)
    largest = max((_largest(tensor) for tensor in _tensors(model.graph)), default=0.0)
    if largest > _LARGEST_FLOAT16:
        raise NumericMismatchError(
            f"A weight of magnitude {largest:g} is beyond float16 ({_LARGEST_FLOAT16}).",
            hint="Compile for fp32 or bf16.",
        )
    save_onnx(_half(model), destination)
    check_onnx(destination)


def to_bf16(source: Path, destination: Path) -> None:
    """Write the bfloat16-typed form of a float32 model.

    The converter to float16 decides what stays in float32; then float16 becomes bfloat16, with the weights rounded
    from the source.
    """
    model = onnx.version_converter.convert_version(onnx.load(source), _BF16_OPSET)
    weights = {tensor.name: tensor for tensor in copy.deepcopy(model.graph).initializer}
    half = _half(model)
    for tensor in _tensors(half.graph):
        if tensor.data_type == TensorProto.FLOAT16:
            _fill_bf16(tensor, weights.get(tensor.name, tensor))
    for info in (*half.graph.input, *half.graph.output, *half.graph.value_info):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT16:
            info.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for node in half.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
    save_onnx(half, destination)
    check_onnx(destination)


def to_fp32(source: Path, destination: Path) -> None:
    """Write the float32 form of a float16- or bfloat16-typed model: its weights as they were rounded, computed exactly.

    ONNX Runtime has no bfloat16 operators on CPUs, and float16 ones for some operators only.
    """
    model = onnx.load(source)
    for graph in _graphs(model.graph):
        for tensor in _tensors(graph):
            if tensor.data_type in _HALVES:
                values = numpy_helper.to_array(tensor).astype("float32")
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.tensor_type.elem_type in _HALVES:
                info.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i in _HALVES:
                    attribute.i = TensorProto.FLOAT
    save_onnx(model, destination)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those of its control flow."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    with warnings.catch_warnings():
        # The converter warns of every weight below float16's smallest number, which it rounds.
        warnings.simplefilter("ignore")
        half = convert_float_to_float16(model, keep_io_types=True)
    # The converter appends its casts of the inputs at the end of the graph.
    OnnxModel(half).topological_sort()
    strip_metadata(half)
    return half


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Constants of a graph: initializers and the values of Constant nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _largest(tensor: onnx.TensorProto) -> float:
    if tensor.data_type != TensorProto.FLOAT:
        return 0.0
    values = numpy_helper.to_array(tensor)
    return float(abs(values).max()) if values.size else 0.0


def _fill_bf16(tensor: onnx.TensorProto, source: onnx.TensorProto) -> None:
    """Give a constant the values of another one, rounded to bfloat16."""
    raw = numpy_helper.to_array(source).astype("float32").astype(ml_dtypes.bfloat16).tobytes()
    tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, TensorProto.BFLOAT16, list(tensor.dims), raw, raw=True))
