"""What of a foreign ONNX file is looked at before a library loads it."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, SparseTensorProto, TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from prunec.passes.archives import check_regular, leaves_folder
from prunec.passes.errors import InputError, first_line

#: Bits of the types that are stored packed; of all others, their NumPy type's.
_PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
#: A sparse tensor may stand for this many values; libraries write it out in full.
_MOST_SPARSE_VALUES = 1 << 26


def read_onnx(path: Path) -> ModelProto:
    """The model in an ONNX file, without the values that stand in other files, which were looked at.

    Raises:
        InputError: The file can't be read; values of it lie outside of its folder, behind a link, or in no regular
            file; or a tensor stands for more values than are stored.
    """
    check_regular(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise InputError(f"{path} can't be read as an ONNX file: {first_line(error)}.") from error
    for tensor in _tensors(model):
        if isinstance(tensor, SparseTensorProto):
            if min(tensor.dims, default=0) < 0 or prod(tensor.dims) > _MOST_SPARSE_VALUES:
                raise InputError(f"{path}: a sparse tensor has the shape {list(tensor.dims)}.")
        elif tensor.data_location == TensorProto.EXTERNAL:
            _check_external(path, tensor)
        else:
            _check_size(path, tensor, _stored_bytes(tensor))
    return model


def _check_external(path: Path, tensor: TensorProto) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    where = path.parent / location
    if not location or leaves_folder(location):
        raise InputError(f"{path}: the values of {tensor.name!r} lie in {location!r}, outside of the model's folder.")
    links = [step for step in (where, *where.parents) if path.parent in step.parents and step.is_symlink()]
    if links or not where.is_file():
        what = f"behind the link {links[0]}" if links else f"in {where}, which is no regular file"
        raise InputError(f"{path}: the values of {tensor.name!r} lie {what}.")
    available = where.stat().st_size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", available - offset))
    except ValueError as error:
        raise InputError(f"{path}: the values of {tensor.name!r} have no place: {first_line(error)}.") from error
    if offset < 0 or length < 0 or offset + length > available:
        raise InputError(
            f"{path}: the values of {tensor.name!r} are bytes {offset} to {offset + length} of {where}, which has "
            f"{available}."
        )
    _check_size(path, tensor, length)


def _check_size(path: Path, tensor: TensorProto, stored: int) -> None:
    shape = list(tensor.dims)
    if min(shape, default=0) < 0 or prod(shape) * _bits(tensor) // 8 > stored:
        raise InputError(f"{path}: the tensor {tensor.name!r} has the shape {shape}, and {stored:,} bytes are stored.")


def _bits(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return 0  # of any length; they are all in the file
    try:
        name = TensorProto.DataType.Name(tensor.data_type)
        return _PACKED_BITS.get(name) or int(tensor_dtype_to_np_dtype(tensor.data_type).itemsize) * 8
    except (KeyError, ValueError):  # a type that isn't known here is the library's to refuse
        return 1


def _stored_bytes(tensor: TensorProto) -> int:
    """Bytes that the values in the file itself make, at most: a field holds one value, or one part of a complex one."""
    values = len(tensor.float_data) + len(tensor.int32_data) + len(tensor.double_data) + len(tensor.int64_data)
    return len(tensor.raw_data) + 8 * (values + len(tensor.uint64_data))


def _tensors(model: ModelProto) -> Iterator[TensorProto | SparseTensorProto]:
    """Every tensor of a model: of its graph, the graphs within, and its functions; sparse ones with their parts."""
    graphs: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        sparse = [tensor for attribute in attributes for tensor in (attribute.sparse_tensor, *attribute.sparse_tensors)]
        if isinstance(graph, GraphProto):
            yield from graph.initializer
            sparse += graph.sparse_initializer
        for attribute in attributes:
            yield from (attribute.t, *attribute.tensors)
            graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
        for tensor in sparse:
            yield from (tensor, tensor.values, tensor.indices)
