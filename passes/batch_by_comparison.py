"""A batch that varies although the network's code turns it into a whole number, found by comparing two exports.

``len(x)`` and ``int(x.shape[0] / 4)`` fix the batch for torch.export, which sees numbers. In exports with n and n + 1
samples those numbers are a and b; ``k * batch + c`` with k = b - a gives both. Whether it gives the others too is found
by running the network with another batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import add, mul
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from prunec.passes.dimensions import batch_size, has_samples, input_tensors, with_samples
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.exported import attribute
from prunec.passes.module_copy import Copies
from prunec.passes.normalise import inline_regions, remove_dead_nodes
from prunec.passes.running import gives, run
from prunec.passes.tensors import Inputs
from prunec.passes.torch_export import export_as_is, export_with_batch, unchecked_module, unlifted_graph

#: Samples beside those of the inputs with which two exports are compared with the network.
_MORE = 3


class _UnlikeError(Exception):
    """Two exports differ in more than whole numbers."""


@dataclass(frozen=True)
class Varied:
    """An export whose batch was made to vary.

    Attributes:
        exported: The export.
        traced: The graph of the network itself with the batch of the inputs, of which it was made.
        how: How it came about, in words.
    """

    exported: ExportedProgram
    traced: Graph
    how: str


def export_by_comparison(copies: Copies, inputs: Inputs) -> Varied | None:
    """Export a network, which can't be exported so as it is, with any batch.

    Args:
        copies: Copies of the network.
        inputs: Example inputs of several samples.

    Returns:
        None where exports with two batches differ in more than whole numbers, or where what was made of them does
        something else than the network with a third batch.
    """
    samples = batch_size(input_tensors(inputs))
    first, second, third = samples, samples + 1, samples + _MORE
    try:
        traced = _fixed(copies, with_samples(inputs, first))
        merged = _merged(_comparable(traced), _comparable(_fixed(copies, with_samples(inputs, second))))
        exported = export_with_batch(merged, inputs, Dim("batch"))
    except Exception:  # noqa: BLE001 - torch.export raises many types; the batch is fixed then, for the reason known
        return None
    if not _holds(copies, exported, _distinct(with_samples(inputs, third))):
        return None
    how = (
        f"The batch was made to vary by comparing captures with {first} and {second} samples; with {third} samples "
        "the network gives the same."
    )
    return Varied(exported, traced.graph, how)


def _fixed(copies: Copies, inputs: Inputs) -> ExportedProgram:
    return export_as_is(copies.to_trace(*inputs), inputs)


def _comparable(exported: ExportedProgram) -> GraphModule:
    """The unlifted graph in one level, without what nothing reads, such as samples that a loop takes in vain."""
    module = unlifted_graph(exported)
    inline_regions(module)
    remove_dead_nodes(module.graph)
    return module


def _merged(first: GraphModule, second: GraphModule) -> GraphModule:
    """The first graph, changed in place to take any batch; its nodes keep their names and metadata.

    Raises:
        _UnlikeError: The graphs differ in more than whole numbers.
    """
    nodes, others = list(first.graph.nodes), list(second.graph.nodes)
    if [(node.op, node.target) for node in nodes] != [(node.op, node.target) for node in others]:
        raise _UnlikeError
    counterparts = dict(zip(nodes, others, strict=True))
    number = _numbers(counterparts)

    def merged(value: Any, other: Any) -> Any:
        if type(value) is int and type(other) is int and value != other:
            return number(value, other)
        alike = counterparts[value] is other if isinstance(value, Node) else type(value) is type(other)
        if not alike or (not isinstance(value, Node) and value != other):
            raise _UnlikeError
        return value

    for node, other in counterparts.items():
        if node.op == "get_attr" and not _are_equal(*(attribute(m, node.target) for m in (first, second))):
            raise _UnlikeError
        node.args, node.kwargs = pytree.tree_map(merged, (node.args, node.kwargs), (other.args, other.kwargs))
    first.recompile()
    return first


def _numbers(counterparts: Mapping[Node, Node]) -> Callable[[int, int], Node]:
    """What gives the node that computes ``k * batch + c`` from its values in two graphs; the first gets the nodes.

    Raises:
        _UnlikeError: No input has another size in the second graph.
    """
    inputs = [node for node in counterparts if node.op == "placeholder"]
    batch = next((node for node in inputs if _samples(node) != _samples(counterparts[node])), None)
    if batch is None:
        raise _UnlikeError
    graph, samples, start = batch.graph, _samples(batch) or 0, inputs[-1].next
    with graph.inserting_before(start):
        size = graph.call_function(torch.ops.aten.sym_size.int, (batch, 0))

    @cache
    def number(value: int, other: int) -> Node:
        step = other - value
        rest = value - step * samples
        with graph.inserting_before(start):
            product = size if step == 1 else graph.call_function(mul, (size, step))
            return product if rest == 0 else graph.call_function(add, (product, rest))

    return number


def _samples(node: Node) -> int | None:
    """Dimension 0 of an input, None where it has none."""
    value = node.meta.get("val")
    return int(value.shape[0]) if isinstance(value, Tensor) and value.ndim else None


def _are_equal(value: Any, other: Any) -> bool:
    both = isinstance(value, Tensor) and isinstance(other, Tensor)
    return value is other or (both and value.dtype == other.dtype and torch.equal(value, other))


def _holds(copies: Copies, exported: ExportedProgram, inputs: Inputs) -> bool:
    """Whether an export gives what the network does for some inputs."""
    try:
        return gives(unchecked_module(exported), inputs, run(copies.to_run(), inputs))
    except UnsupportedModelError:
        return False


def _distinct(inputs: Inputs) -> Inputs:
    """The inputs, whose samples may be copies of one, with those of each tensor shifted along its last dimension."""
    samples = batch_size(input_tensors(inputs))

    def shifted(leaf: Any) -> Any:
        if not has_samples(leaf, samples) or leaf.ndim < 2:
            return leaf
        return torch.stack([row.roll(place, -1) for place, row in enumerate(leaf)])

    args, kwargs = pytree.tree_map(shifted, inputs)
    return args, kwargs
