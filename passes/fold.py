"""Computed weights become plain ones: what the network makes of its parameters alone is made once."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.fx import Node

from prunec.passes.base import PassResult
from prunec.passes.cost import weighted_calls
from prunec.passes.graphs import arguments
from prunec.passes.program import Program, copied_graph


@dataclass(frozen=True)
class FoldParameters:
    """Replace weights that are computed from parameters, as by weight standardisation, by their values.

    A standardised weight mixes its input channels, so pruning them is inexact; folded, it is exact. In exchange a
    finetune then trains the folded weights. A folded weight has the name of the parameter that it was made of and
    whose shape it has; a computed weight without such a parameter stays computed.
    """

    name: ClassVar[str] = "fold-parameters"

    def run(self, program: Program) -> PassResult:
        """Fold the weights of convolutions and linear layers; parameters that nothing else reads are dropped."""
        graph = copied_graph(program.graph)
        tensors = program.tensors()
        folded: dict[str, Tensor] = {}
        for call, _ in weighted_calls(graph):
            weight: Node = arguments(call)["weight"]
            source = _source(weight, graph_tensors=tensors)
            if source is None or str(source.target) in folded:
                continue
            with torch.no_grad():
                value = _evaluate(weight, tensors, {})
            folded[str(source.target)] = nn.Parameter(value.detach().clone(), tensors[str(source.target)].requires_grad)
            with graph.inserting_before(call):
                plain = graph.get_attr(str(source.target))
            plain.meta = {**source.meta}
            weight.replace_all_uses_with(plain)
        graph.eliminate_dead_code()
        used = {str(node.target) for node in graph.find_nodes(op="get_attr")}
        kept = {name: folded.get(name, tensor) for name, tensor in tensors.items() if name in used}
        result = program.with_tensors(kept, graph)
        result.masks = {name: mask for name, mask in program.masks.items() if name in kept}
        return PassResult(result, bool(folded), {"folded": sorted(folded)})


def _source(weight: Node, graph_tensors: dict[str, Tensor]) -> Node | None:
    """The parameter that a computed weight is made of and nothing else reads; None where it can't be folded."""
    if weight.op != "call_function":
        return None
    seen: set[Node] = set()
    todo, sources = [weight], []
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "get_attr":
            sources.append(node)
        elif node.op == "call_function":
            todo.extend(node.all_input_nodes)
        else:
            return None  # depends on the input
    fitting = [
        node
        for node in sources
        if isinstance(graph_tensors[str(node.target)], nn.Parameter)
        and tuple(graph_tensors[str(node.target)].shape) == weight.meta["shapes"]
        and all(user in seen for user in node.users)
    ]
    return fitting[0] if len(fitting) == 1 else None


def _evaluate(node: Node, tensors: dict[str, Tensor], done: dict[Node, Any]) -> Any:
    if node not in done:
        if node.op == "get_attr":
            done[node] = tensors[str(node.target)]
        else:
            for source in node.all_input_nodes:
                _evaluate(source, tensors, done)
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda source: done[source])
            done[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return done[node]
