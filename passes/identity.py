"""What a network is: fingerprints of its architecture and of its weights that depend on its content alone.

A ``state_dict``, its safetensors file, its ``.pt2`` archive and its module are captured as graphs that differ in the
order of nodes, in names that the exporter made up or chose among those of a tied tensor, in tensors that no output
depends on, and in whether the batch is fixed. None of these count.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, operator_name
from prunec.passes.program import Program
from prunec.passes.tensors import fingerprint


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
    """SHA-256 over dtype, shape and bytes of every tensor that the outputs depend on, as the operators need them."""
    tensors = program.tensors()
    used = [str(node.target) for node in _used_nodes(program.graph) if node.op == "get_attr"]
    return fingerprint({f"{number:06}": tensors[name] for number, name in enumerate(used)})


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
    given = sorted(arguments(node).items()) if is_aten else [node.args, sorted(node.kwargs.items())]
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
