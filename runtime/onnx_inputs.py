"""Random inputs of an ONNX file: of its inputs' own types, and valid where they are indices."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto

from prunec.passes.errors import InputError
from prunec.passes.feeding import drawn, full_shape
from prunec.passes.network_inputs import NetworkInput, VaryingSize
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
    signature, bounds = signature_of(model, where), dict(_index_bounds(model.graph))
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
        if unknown := [s.name for s in each.shape if isinstance(s, VaryingSize) and s.largest is None]:
            raise InputError(
                f"Input {each.words()}: the size of {unknown[0]!r} may vary, and nothing tells what it is.",
                hint="prunec notes sizes in files that it writes where prunec.toml has them: [model] dims.",
            )


def _in_bounds(each: NetworkInput, bounds: dict[str, int]) -> NetworkInput:
    """An input with the range of a table's rows, where it has none of its own and chooses among them."""
    bound = bounds.get(each.name, 0)
    if not each.is_whole or each.low is not None or bound < 1 or each.dtype == "bool":
        return each
    return replace(each, low=0, high=bound)


def _index_bounds(graph: GraphProto) -> Iterator[tuple[str, int]]:
    """For each input that chooses rows of tables the number of rows of the smallest."""
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            sizes.setdefault(value.name, [int(dim.dim_value) for dim in dims])
    for value in graph.input:
        reached, bound = {value.name}, math.inf
        for node in graph.node:  # in the order of execution
            if node.op_type in _SAME_VALUES and reached & set(
                node.input[:1] if node.op_type != "Concat" else node.input
            ):
                reached.update(node.output)
            elif node.op_type in _INDEXING and len(node.input) > 1 and node.input[1] in reached:
                axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
                table = sizes.get(node.input[0], [])
                bound = min(bound, table[axis]) if -len(table) <= axis < len(table) else bound
        if bound < math.inf:
            yield value.name, int(bound)
