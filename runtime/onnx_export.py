"""Export a program to ONNX: one file, dynamic batch, equal bytes for equal weights."""

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data

from prunec.passes.errors import UnsupportedModelError
from prunec.passes.program import Program
from prunec.runtime.onnx_prepare import prepared

_LARGEST_FILE_BYTES = 2_000_000_000


def export_onnx(program: Program, path: Path) -> None:
    """Write the inference form of a program as float32 ONNX.

    Batch norms are folded into convolutions; weights keep the names of the parameters they come from, also where the
    exporter transposed them. A dynamic batch dimension is named "batch".

    Args:
        program: any program.
        path: the file; above 2 GB the weights go beside it, into ``<name>.data``.

    Raises:
        UnsupportedModelError: an operator has no ONNX form.
    """
    exported = program.export()
    outputs = len(exported.graph_signature.user_outputs)
    names = ["output"] if outputs == 1 else [f"output_{i}" for i in range(outputs)]
    try:
        with _quiet():
            result = torch.onnx.export(prepared(exported), dynamo=True, verbose=False, output_names=names)
            assert result is not None
            model: onnx.ModelProto = result.model_proto
    except Exception as error:
        raise UnsupportedModelError(
            f"The network can't be exported to ONNX: {_root_cause(error)}",
            hint="The operator named here has no ONNX form in this version of torch.",
        ) from error
    _name_weights(model.graph, program)
    if program.batch_is_dynamic:
        _name_batch(model.graph)
    strip_metadata(model)
    save_onnx(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter from the user's terminal; errors are raised anyway."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _name_weights(graph: onnx.GraphProto, program: Program) -> None:
    """Give matrices that lost their parameter's name that name back, found by their values.

    The exporter stores the weight of a linear layer on more than two axes transposed, as "val_7", and a tied one under
    any of its names.
    """
    parameters = program.parameters()
    weights = dict.fromkeys(layer.weight for layer in program.layers() if layer.weight in parameters)
    present = {tensor.name for tensor in graph.initializer}
    lost: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for name in weights:
        weight = parameters[name].detach()
        if weight.ndim == 2 and name not in present:
            for matrix in (weight, weight.t()):
                lost.setdefault(_fingerprint(matrix.contiguous().numpy()), []).append(name)
    renamed: dict[str, str] = {}
    for tensor in graph.initializer if lost else ():
        if tensor.name in weights or len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        names = lost.get(_fingerprint(onnx.numpy_helper.to_array(tensor)), [])
        if free := [name for name in names if name not in renamed.values()]:
            renamed[tensor.name] = free[0]
            tensor.name = free[0]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _fingerprint(matrix: NDArray[Any]) -> tuple[tuple[int, ...], bytes]:
    return matrix.shape, hashlib.sha256(matrix.tobytes()).digest()


def _name_batch(graph: onnx.GraphProto) -> None:
    """Call the first dimension of the inputs "batch" wherever it occurs, also in expressions."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if symbol and dim.dim_param:
                dim.dim_param = dim.dim_param.replace(symbol, "batch")


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove what differs between machines or says nothing to a runtime: traces, scopes, rule names."""
    graph = model.graph
    graph.name = "prunec"
    for item in (
        model,
        graph,
        *graph.node,
        *graph.initializer,
        *graph.input,
        *graph.output,
        *graph.value_info,
    ):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    for function in model.functions:
        function.ClearField("metadata_props")
        for node in function.node:
            node.ClearField("metadata_props")


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, the same bytes for the same model, and check it; above 2 GB its weights go beside it."""
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer if not uses_external_data(tensor))
    if size < _LARGEST_FILE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}.data")
    onnx.checker.check_model(path, full_check=True)
