"""Small helpers over the ATen graph of a program: arguments by name, shapes as plain integers."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.fx import Graph, Node

#: Shape of a tensor, or a list of them for an operator with several outputs, or None where there is no tensor.
Shapes = tuple[int, ...] | list["Shapes"] | None

#: Every size of a channel axis is far below this number, and every number of `symbol_primes` above it.
LARGEST_SIZE = 1_000_000
#: What the names of prunec's own notes of nodes begin with.
_OWN = "prunec_"


def symbol_primes() -> Iterator[int]:
    """The numbers that stand for symbolic sizes in node shapes: primes that no real size equals, the batch's first."""
    prime = LARGEST_SIZE
    while True:
        prime = int(sympy.nextprime(prime))
        yield prime


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of a call of an ``OpOverload`` by their schema names, with defaults filled in."""
    args, kwargs = node.args, node.kwargs
    given = len(args)
    return {
        name: args[position] if position < given else kwargs.get(name, default)
        for position, (name, default) in enumerate(_signature(node.target))
    }


@cache
def _signature(target: object) -> tuple[tuple[str, Any], ...]:
    """Names and defaults of an operator's arguments, in order."""
    assert isinstance(target, torch._ops.OpOverload)
    return tuple((argument.name, argument.default_value) for argument in target._schema.arguments)


def set_argument(node: Node, name: str, value: Any) -> None:
    """Give one argument of an ATen call, named as in its schema, a new value."""
    position = [argument for argument, _ in _signature(node.target)].index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def operator_name(target: object) -> str:
    """Name of a call target without its overload: "conv2d", "add", "wrap_with_set_grad_enabled"."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket.__name__)
    return str(getattr(target, "__name__", target))


def calls(graph: Graph, *operators: str) -> Iterator[Node]:
    """The graph's calls, all of them or those of the named operators, in order."""
    for node in graph.nodes:
        if node.op == "call_function" and (not operators or operator_name(node.target) in operators):
            yield node


def module_path(node: Node) -> str:
    """Path of the module whose code made this node ("" for the root or where it is not known)."""
    return str(node.meta.get("module", ""))


def copied_graph(graph: Graph) -> Graph:
    """A copy of a graph with the same node names, metadata and calling convention."""
    clone = Graph()
    clone.set_codegen(graph._codegen)
    outputs = clone.graph_copy(graph, {})
    output = clone.output(outputs)
    output.meta = dict(graph.output_node().meta)
    for node in clone.nodes:  # else whoever traces the copy would write into the original's
        node.meta["custom"] = notes(node)
    return clone


def is_read_once(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a node yields a tensor of the program that one call alone reads, through any node, under any name."""
    if node.op != "get_attr":
        return False
    tensor = tensors[str(node.target)]
    same = [other for other in node.graph.find_nodes(op="get_attr") if tensors[str(other.target)] is tensor]
    return sum(len(other.users) for other in same) == 1


def unquantized(node: Node) -> Node:
    """The node whose value a quantizer puts on a grid; the node itself where it is none."""
    while node.op == "call_function" and operator_name(node.target).startswith("fake_quantize"):
        node = arguments(node)["self"]
    return node


def notes(node: Node) -> dict[str, str]:
    """Notes that prunec wrote on a node, by their names; archives of torch.export keep them."""
    custom = node.meta.get("custom")
    items = custom.items() if isinstance(custom, dict) else ()
    return {name: text for name, text in items if str(name).startswith(_OWN) and isinstance(text, str)}


def note(node: Node, name: str, text: str) -> None:
    """Write a note of prunec's own, whose name says so, on a node."""
    node.meta["custom"] = notes(node) | {name: text}


def tensor_names(node: Node, *options: str) -> tuple[str, ...]:
    """Names of the parameters and buffers that these arguments of a call are; the others are left out."""
    values = (arguments(node).get(option) for option in options)
    return tuple(str(value.target) for value in values if isinstance(value, Node) and value.op == "get_attr")


def batch_norm_tensors(graph: Graph, *options: str) -> frozenset[str]:
    """Names of the parameters and buffers that these arguments of the graph's batch norms are."""
    return frozenset(name for node in calls(graph, "batch_norm") for name in tensor_names(node, *options))
