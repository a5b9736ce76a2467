"""Random inputs of an ONNX file: of its inputs' own types, and valid where they are indices."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto

from prunec.passes.errors import InputError
from prunec.passes.feeding import drawn, full_shape
from prunec.passes.network_inputs import WHOLE, NetworkInput, VaryingSize
from prunec.runtime.onnx_signature import Signature, signature_of

#: Operators that give the values of their first input, perhaps in another shape or type.
_SAME_VALUES = frozenset(
    ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Slice", "Expand", "Concat")
)
#: Operators that take from their first input at the indices in their second.
_INDEXING = ("Gather", "GatherElements")


def random_onnx_inputs(model: ModelProto, where: str, batch: int, seed: int) -> list[NDArray[np.generic]]:
    """Random inputs of a model, in their order.

    Values lie in the range that the file's metadata tell. Without one, floating-point inputs are standard normal, whole
    numbers that choose rows of a table are its rows, and others are 0 and 1.

    Args:
        model: The model.
        where: The file, as messages name it.
        batch: Number of rows.
        seed: Seed of the values.

    Raises:
        InputError: The batch is fixed to another size, or another dimension is dynamic whose size isn't known.
    """
    signature, bounds = signature_of(model, where), _index_bounds(model.graph)
    _check_sizes(signature, batch)
    generator = torch.Generator().manual_seed(seed)
    return [
        drawn(_in_bounds(each, bounds), full_shape(each, batch, {}), generator).numpy() for each in signature.inputs
    ]


def _check_sizes(signature: Signature, batch: int) -> None:
    if signature.batch not in (None, batch):
        name = signature.inputs[0].name
        raise InputError(
            f"Input {name!r} has its batch fixed to {signature.batch}.", hint=f"Use --batch {signature.batch}."
        )
    for each in signature.inputs:
        if unknown := [s.name for s in each.shape if isinstance(s, VaryingSize) and not s.example]:
            raise InputError(
                f"Input {each.words()}: the size of {unknown[0]!r} may vary, and nothing tells what it is.",
                hint="prunec notes sizes in files that it writes where prunec.toml has them: [model] dims.",
            )


def _in_bounds(each: NetworkInput, bounds: Mapping[str, int]) -> NetworkInput:
    """An input with the range of a table's rows, where it has none of its own and chooses among them."""
    bound = min(bounds.get(each.name, 0), WHOLE.get(each.dtype, (0, 0))[1])
    return each if each.low is not None or bound < 1 else replace(each, low=0, high=bound)


def _index_bounds(graph: GraphProto) -> dict[str, int]:
    """For each input that chooses rows of tables the number of rows of the smallest."""
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            sizes.setdefault(value.name, [int(dim.dim_value) for dim in dims])
    origins, bounds = {value.name: value.name for value in graph.input}, dict[str, int]()
    for node in graph.node:  # in the order of execution
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        origin = next((origins[name] for name in sources if name in origins), None)
        if node.op_type in _SAME_VALUES and origin is not None:
            origins.update(dict.fromkeys(node.output, origin))
        elif node.op_type in _INDEXING and len(node.input) > 1 and node.input[1] in origins:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            table, chosen = sizes.get(node.input[0], []), origins[node.input[1]]
            if -len(table) <= axis < len(table):
                bounds[chosen] = min(bounds.get(chosen, table[axis]), table[axis])
    return bounds
