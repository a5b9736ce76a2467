"""Operators without a rule as the operators that they are made of, where all of those have one.

torch.export leaves operators such as ``cosine_similarity`` whole, and lists their decompositions beside.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from prunec.passes.graphs import calls, operator_name
from prunec.passes.operators import RANGES
from prunec.passes.rules.lookup import find_rule
from prunec.passes.silence import without_logging


def decompose(graph: Graph) -> None:
    """Replace operators without a rule, in place, in a graph that torch.export's fake values still annotate."""
    for node in list(calls(graph)):
        if not _is_known(node) and _can_be_traced(node):
            body = _traced(node)
            if body is not None and all(map(_is_known, body.graph.nodes)):
                for part in body.graph.nodes:
                    part.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
                inline(node, body.graph, node.all_input_nodes)


def inline(node: Node, body: Graph, inputs: list[Node]) -> None:
    """Put the nodes of a graph in the place of a call; its placeholders stand for the inputs, in order."""
    graph = node.graph
    with graph.inserting_before(node):
        outputs = graph.graph_copy(body, dict(zip(body.find_nodes(op="placeholder"), inputs, strict=True)))
    if isinstance(outputs, Node):
        node.replace_all_uses_with(outputs)
    else:
        assert isinstance(outputs, tuple | list)
        for user in list(node.users):
            user.replace_all_uses_with(outputs[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
    graph.erase_node(node)


def _is_known(node: Node) -> bool:
    """Whether the analysis knows what a node does: one with a rule, numbers, ranges that become constants."""
    if node.op != "call_function":
        return node.op != "get_attr"
    if operator_name(node.target) in RANGES:
        return not node.all_input_nodes
    is_operator = isinstance(node.target, torch._ops.OpOverload)
    is_size = operator_name(node.target) == "sym_size"
    return not is_operator or is_size or find_rule(node) is not None or is_constant(node)


def is_constant(node: Node) -> bool:
    """Whether a call makes a tensor of numbers alone, at no size that varies: a range, an identity matrix, a window."""
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and target.namespace == "aten"
        and [type(result.type) for result in target._schema.returns] == [torch.TensorType]
        and torch.Tag.nondeterministic_seeded not in target.tags
        and not node.all_input_nodes
        and (operator_name(target) in RANGES or find_rule(node) is None)
    )


def _can_be_traced(node: Node) -> bool:
    """Whether an operator is a function of tensors with known values' types, and not random."""
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and target.namespace == "aten"
        and not target._schema.is_mutable
        and torch.Tag.nondeterministic_seeded not in target.tags
        and all("val" in source.meta for source in node.all_input_nodes)
        and any(isinstance(source.meta["val"], FakeTensor) for source in node.all_input_nodes)
        and (isinstance(node.meta.get("val"), torch.Tensor) or all(map(_is_item, node.users)))
    )


def _is_item(node: Node) -> bool:
    return operator_name(node.target) == "getitem"


def _traced(node: Node) -> GraphModule | None:
    """The decomposition of a call, as a graph of its inputs; None where it depends on values, and can't be traced."""
    leaves, structure = pytree.tree_flatten((node.args, node.kwargs))
    target: Any = node.target

    def call(*given: Any) -> Any:
        values = dict(zip(node.all_input_nodes, given, strict=True))
        args, kwargs = pytree.tree_unflatten(
            [values[leaf] if isinstance(leaf, Node) else leaf for leaf in leaves], structure
        )
        return target(*args, **kwargs)

    values = [source.meta["val"] for source in node.all_input_nodes]
    with next(value.fake_mode for value in values if isinstance(value, FakeTensor)), without_logging():
        try:
            return make_fx(call, decomposition_table=_decompositions())(*values)
        except Exception:  # noqa: BLE001 - of many types; the operator stays, which the analysis reports by name
            return None


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Decompositions that torch.export has for operators without a rule."""
    graph = Graph()
    table = torch.export.default_decompositions()
    return {operator: table[operator] for operator in table if find_rule(graph.call_function(operator)) is None}
