"""What runs of a bfloat16 form where no runtime has bfloat16."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def widened(path: Path, destination: Path) -> Path:
    """A bfloat16 form with float32 in place of bfloat16, which ONNX Runtime can run: the rounded weights stay."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            values = numpy_helper.to_array(tensor).view(ml_dtypes.bfloat16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    model.graph.ClearField("value_info")
    onnx.save(model, destination)
    return destination
