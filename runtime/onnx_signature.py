"""The inputs and outputs of an ONNX file: their names and dimensions, and what else is known of them.

ONNX holds names, sizes and types. Ranges of values, optional inputs and the structure of the outputs stand in metadata
of the file, where there is anything to tell; a file of another origin has none.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import onnx
from onnx import GraphProto, ModelProto, TensorProto

from prunec.passes.boundary import reading
from prunec.passes.dimensions import batch_size
from prunec.passes.network_inputs import BATCH, DTYPES, NetworkInput, VaryingSize
from prunec.passes.outputs import OutputForm, tuple_form
from prunec.passes.program import Program
from prunec.runtime.onnx_files import OWN_METADATA
from prunec.runtime.onnx_reading import read_onnx

_INPUTS, _OUTPUTS = f"{OWN_METADATA}inputs", f"{OWN_METADATA}outputs"
#: Characters of the metadata of inputs or outputs that are read.
_MOST_CHARACTERS = 1 << 20
#: Types of ONNX -> those of inputs. ONNX Runtime takes no bfloat16, for which NumPy has no type.
_TYPES: Mapping[int, str] = {
    int(TensorProto.DataType.Value({"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper()))): name
    for name in DTYPES
    if name != "bfloat16"
}


@dataclass(frozen=True)
class Signature:
    """The inputs of a model in their order, the structure of its outputs, and the only batch that it takes, if any."""

    inputs: tuple[NetworkInput, ...]
    outputs: OutputForm
    batch: int | None = None

    @classmethod
    def of(cls, program: Program) -> Self:
        """The signature of a program's ONNX file."""
        batch = None if program.batch_is_dynamic else batch_size(program.example_inputs)
        return cls(program.inputs, OutputForm.of(program.graph), batch)


def name_values(graph: GraphProto, program: Program) -> None:
    """Give the inputs, the outputs and the dynamic dimensions of a freshly exported graph the program's names."""
    inputs = [each.name for each in program.inputs]
    _rename_dimensions(graph, program.inputs)
    old = [value.name for value in (*graph.input, *graph.output)]
    _rename(graph, dict(zip(old, (*inputs, *program.output_names), strict=True)))


def _rename_dimensions(graph: GraphProto, inputs: Sequence[NetworkInput]) -> None:
    """Call dimensions by their names wherever they occur, also in expressions."""
    names: dict[str, str] = {}
    for value, each in zip(graph.input, inputs, strict=True):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param.isidentifier():
                name = each.varying[axis].name if axis in each.varying else BATCH
                names.setdefault(dim.dim_param, name)
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"[A-Za-z_]\w*", lambda match: names.get(match[0], match[0]), dim.dim_param)


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    """Rename values; another value that has one of the names makes way."""
    produced = {name for node in _nodes(graph) for name in node.output} | {tensor.name for tensor in graph.initializer}
    for name in sorted((produced & set(names.values())) - names.keys()):
        free = name
        while free in produced or free in names.values():
            free += "_"
        names = {**names, name: free}
    for node in _nodes(graph):
        for values in (node.input, node.output):
            for position, name in enumerate(values):
                values[position] = names.get(name, name)
    for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        info.name = names.get(info.name, info.name)


def _nodes(graph: GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of those within it, which read its values."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def write_signature(model: ModelProto, signature: Signature) -> None:
    """Note in a model's metadata what ONNX has no place for, where there is anything of it."""
    if any(each != replace(each, low=None, high=None, optional=False) or each.varying for each in signature.inputs):
        _write(model, _INPUTS, [each.to_json() for each in signature.inputs])
    outputs = signature.outputs.to_json()
    if outputs != tuple_form(len(model.graph.output)).to_json():
        _write(model, _OUTPUTS, outputs)


def _write(model: ModelProto, key: str, document: Any) -> None:
    model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=json.dumps(document)))


def file_signature(path: Path) -> Signature:
    """The signature of an ONNX file; for errors see `read_onnx` and `signature_of`."""
    return signature_of(read_onnx(path), str(path))


def signature_of(model: ModelProto, where: str) -> Signature:
    """The signature of a model: what its metadata tell, else its graph, whose outputs are a tensor or a tuple.

    Raises:
        InputError: The metadata can't be read, or are those of another graph; ``where`` names the file.
    """
    with reading(where, "an ONNX file"):
        constants = {tensor.name for tensor in model.graph.initializer}
        values = [value for value in model.graph.input if value.name not in constants]
        noted = {entry.key: entry.value for entry in model.metadata_props}
        inputs = tuple(NetworkInput.from_json(each) for each in _noted(noted, _INPUTS) or ())
        declared = tuple(map(_input, values))
        if inputs and [(each.name, each.dtype) for each in inputs] != [(each.name, each.dtype) for each in declared]:
            raise ValueError("what its metadata tell of its inputs isn't true of its graph")
        outputs = _noted(noted, _OUTPUTS)
        form = tuple_form(len(model.graph.output)) if outputs is None else OutputForm.from_json(outputs)
        if len(form.computed_paths) != len(model.graph.output):
            raise ValueError("what its metadata tell of its outputs isn't true of its graph")
        first = next((value.type.tensor_type.shape.dim for value in values), ())
        batch = int(first[0].dim_value) if first and first[0].HasField("dim_value") else None
        return Signature(inputs or declared, form, batch)


def _noted(noted: Mapping[str, str], key: str) -> Any:
    text = noted.get(key)
    if text is not None and len(text) > _MOST_CHARACTERS:
        raise ValueError(f"its metadata {key} have {len(text)} characters")
    return None if text is None else json.loads(text)


def _input(value: onnx.ValueInfoProto) -> NetworkInput:
    """What a graph tells of an input, whose first dimension is taken for the batch."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in _TYPES:
        raise ValueError(f"its input {value.name!r} is no tensor of numbers that NumPy has")
    dims = tensor.shape.dim
    shape = tuple(_size(dim, f"{value.name}_{axis}") for axis, dim in enumerate(dims) if axis)
    return NetworkInput(value.name, shape, _TYPES[tensor.elem_type], has_batch=bool(dims))


def _size(dim: onnx.TensorShapeProto.Dimension, unnamed: str) -> int | VaryingSize:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    is_name = dim.dim_param.isidentifier() and dim.dim_param != BATCH
    return VaryingSize(dim.dim_param if is_name else re.sub(r"\W", "_", f"_{unnamed}"), example=0, smallest=0)
