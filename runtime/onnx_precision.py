"""Typed forms of a float32 ONNX model for strongly typed builders: 16 bits inside, float32 inputs and outputs.

Imports no torch: the shape inference and the checker of ONNX are native code, which runs in a process of its own.
"""

from pathlib import Path

import onnx

from prunec.runtime.onnx_files import check_onnx, save_onnx
from prunec.runtime.onnx_typing import BFLOAT16, FLOAT16, retype

#: First opset in which convolutions and pools are declared for bfloat16.
_BF16_OPSET = 22


def to_fp16(source: Path, destination: Path) -> None:
    """Write the float16-typed form of a float32 model; `onnx_typing.retype` says what stays in float32.

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
