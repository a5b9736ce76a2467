"""ONNX models as files: equal bytes for equal models. Imports no torch."""

from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

#: How the names of metadata begin that are prunec's own.
OWN_METADATA = "prunec."
_LARGEST_FILE_BYTES = 2_000_000_000


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove what differs between machines or means nothing to a runtime: traces, scopes, names of rules.

    What prunec itself notes of a model stays.
    """
    own = [entry for entry in model.metadata_props if entry.key.startswith(OWN_METADATA)]
    graph = model.graph
    graph.name = "prunec"
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    model.metadata_props.extend(own)
    for function in model.functions:
        for part in (function, *function.node):
            part.ClearField("metadata_props")


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, the same bytes for the same model; above 2 GB its weights go beside it."""
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer if not uses_external_data(tensor))
    if size < _LARGEST_FILE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}.data")


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether values of a model are on grids of whole numbers."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def check_onnx(path: Path) -> None:
    """Check a file by ONNX's own checker, in native code; raises its error where the file is no valid model."""
    onnx.checker.check_model(path, full_check=True)
