"""Computed weights become plain ones: what depends on parameters alone is computed once."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from prunec.passes.base import PassResult
from prunec.passes.cost import weighted_calls
from prunec.passes.graphs import arguments, copied_graph
from prunec.passes.program import Program
from prunec.passes.tensors import like


def fold_weights(program: Program) -> PassResult:
    """Replace weights that are computed from parameters by their values, as `FoldParameters` says."""
    graph = copied_graph(program.graph)
    # No operator reads counters of batches, and they belong to the network all the same.
    idle = {node for node in graph.find_nodes(op="get_attr") if not node.users}
    tensors = program.tensors()
    folded: dict[str, Tensor] = {}
    for call, _ in weighted_calls(graph):
        weight: Node = arguments(call)["weight"]
        source = _source(weight, tensors)
        if source is None or str(source.target) in folded:
            continue
        with torch.no_grad():
            value = _evaluate(weight, tensors, {})
        folded[str(source.target)] = like(tensors[str(source.target)], value.detach().clone())
        with graph.inserting_before(call):
            plain = graph.get_attr(str(source.target))
        plain.meta = {**source.meta}
        weight.replace_all_uses_with(plain)
    graph.eliminate_dead_code(is_impure_node=lambda node: node in idle or node.is_impure())
    used = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    kept = {name: folded.get(name, tensor) for name, tensor in tensors.items() if name in used}
    result = program.with_tensors(kept, graph)
    result.masks = {name: mask for name, mask in program.masks.items() if name in kept}
    return PassResult(result, bool(folded), {"folded": sorted(folded)})


def _source(weight: Node, tensors: dict[str, Tensor]) -> Node | None:
    """The parameter that only a computed weight is made of; None where the weight can't be folded."""
    if weight.op != "call_function":
        return None
    seen, todo = {weight}, [weight]
    while todo:
        sources = set(todo.pop().all_input_nodes) - seen
        seen |= sources
        todo += sources
    if any(node.op not in ("get_attr", "call_function") for node in seen):
        return None  # it depends on the input
    parameters = {node: tensors[str(node.target)] for node in seen if node.op == "get_attr"}
    fitting = [
        node
        for node, tensor in parameters.items()
        if isinstance(tensor, nn.Parameter) and tensor.shape == weight.meta["shapes"] and node.users.keys() <= seen
    ]
    return fitting[0] if len(fitting) == 1 else None


def _evaluate(node: Node, tensors: dict[str, Tensor], done: dict[Node, Any]) -> Any:
    if node.op == "get_attr":
        return tensors[str(node.target)]
    if node not in done:
        inputs = {source: _evaluate(source, tensors, done) for source in node.all_input_nodes}
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: inputs[source])
        done[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return done[node]
