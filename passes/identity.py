"""What a network is: fingerprints of its architecture and of its weights that depend on its content alone.

A ``state_dict``, its safetensors file, its ``.pt2`` archive and its module are captured as graphs that differ in the
order of nodes, in names that the exporter made up or chose among those of a tied tensor, in tensors that no output
depends on, and in whether the batch is fixed. None of these count.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import quantizer_of
from prunec.passes.tensors import fingerprint

#: Arguments of quantizers that are values, as weights are.
_OF_GRIDS = ("scale", "zero_point")


def architecture_sha256(program: Program) -> str:
    """SHA-256 of the operators that the outputs depend on, their arguments and the shapes of inputs and weights.

    The values of weights don't count, nor do names: values are numbered as the operators need them.
    """
    positions: dict[Node, int] = {}
    lines, batch = [], _batch(program.graph)
    for node in _used_nodes(program.graph):
        lines.append(_described(node, positions, batch))
        positions[node] = len(positions)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def weights_sha256(program: Program) -> str:
    """SHA-256 over dtype, shape and bytes of every tensor that the outputs depend on, as the operators need them.

    Grids of activations, which stand in the graph as numbers, count as tensors.
    """
    tensors, used = program.tensors(), list[Tensor]()
    for node in _used_nodes(program.graph):
        if node.op == "get_attr":
            used.append(tensors[str(node.target)])
        elif (quantizer := quantizer_of(node)) is not None and (grid := quantizer.grid) is not None:
            used.append(torch.tensor([grid.scale, grid.zero_point, grid.least, grid.most], dtype=torch.float64))
    return fingerprint({f"{number:06}": tensor for number, tensor in enumerate(used)})


def _used_nodes(graph: Graph) -> Iterator[Node]:
    """The inputs in their order, then what the writes and the outputs depend on, each node after those that it reads.

    Independent of the order in which the graph lists nodes, but for the order of writes, which counts.
    """
    visited: set[Node] = set()
    for root in (*graph.find_nodes(op="placeholder"), *filter(_writes, graph.nodes), graph.output_node()):
        stack = [(root, False)]
        while stack:
            node, is_ready = stack.pop()
            if is_ready:
                yield node
            elif node not in visited:
                visited.add(node)
                stack.append((node, True))
                stack += [(source, False) for source in reversed(node.all_input_nodes)]


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _batch(graph: Graph) -> object:
    """The size that stands for the batch in the shapes of inputs, fixed or not: the first one of the first input."""
    shapes = [node.meta.get("shapes") for node in graph.find_nodes(op="placeholder")]
    return next((shape[0] for shape in shapes if shape), None)


def _described(node: Node, positions: dict[Node, int], batch: object) -> str:
    """One node as text in which other nodes stand as their positions."""
    shape = node.meta.get("shapes")
    if node.op == "placeholder" and shape and shape[0] == batch:
        shape = ("batch", *shape[1:])
    if node.op in ("placeholder", "get_attr"):
        return f"{node.op} {node.meta.get('dtype')} {shape}"
    is_aten = isinstance(node.target, torch._ops.OpOverload)
    given: list[Any] = sorted(arguments(node).items()) if is_aten else [node.args, sorted(node.kwargs.items())]
    if quantizer_of(node) is not None:
        given = [(name, value) for name, value in given if name not in _OF_GRIDS or isinstance(value, Node)]
    target = str(node.target) if is_aten else operator_name(node.target)
    return f"{node.op} {target} {_positioned(given, positions)}"


def _positioned(value: object, positions: dict[Node, int]) -> object:
    if isinstance(value, Node):
        return f"%{positions[value]}"
    if isinstance(value, list | tuple):
        return [_positioned(item, positions) for item in value]
    if isinstance(value, dict):
        return {key: _positioned(item, positions) for key, item in value.items()}
    return value
