"""Typed forms of a float32 ONNX model for strongly typed builders: 16 bits inside, float32 inputs and outputs.

Imports no torch: the shape inference and the checker of ONNX are native code, which runs in a process of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from prunec.runtime import children
from prunec.runtime.onnx_files import check_onnx, save_onnx
from prunec.runtime.onnx_typing import BFLOAT16, FLOAT16, retype

#: First opset in which convolutions and pools are declared for bfloat16.
_BF16_OPSET = 22
_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def typed_form(precision: str, source: Path, destination: Path) -> Path:
    """Write the form of a float32 model that a precision asks for, in the process of native code.

    Returns:
        The destination; for float32 the source itself, and nothing is written.

    Raises:
        NumericMismatchError: A weight is beyond the precision's range.
        NativeCrashError: ONNX's native code dies of the model.
    """
    converters = {"fp16": to_fp16, "bf16": to_bf16}
    if precision not in converters:
        return source
    stage = f"ONNX converted {source.name} to {precision}"
    children.call(stage, converters[precision], source.absolute(), destination.absolute())
    return destination


def to_fp16(source: Path, destination: Path) -> None:
    """Write the float16-typed form of a float32 model; `onnx_typing.retype` says what stays in float32.

    Whole numbers of a quantized model stay as they are, and their scales get 16 bits.

    Raises:
        NumericMismatchError: A weight is beyond float16's range.
    """
    model = onnx.load(source)
    retype(model, FLOAT16)
    save_onnx(model, destination)
    check_onnx(destination)


def to_bf16(source: Path, destination: Path) -> None:
    """Write the bfloat16-typed form of a float32 model, as `to_fp16` does.

    Raises:
        NumericMismatchError: A weight is beyond bfloat16's range.
    """
    model = onnx.version_converter.convert_version(onnx.load(source), _BF16_OPSET)
    retype(model, BFLOAT16)
    save_onnx(model, destination)
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


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Constants of a graph: initializers and the values of Constant nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
