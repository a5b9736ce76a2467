"""Rewrite a program so that two layers stand in the place of one: a convolution to few channels, then one of 1x1.

`torch.nn.Sequential` names them: in the place of ``conv1`` stand ``conv1.0`` without a bias and ``conv1.1`` with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Graph, Node

from prunec.passes.cost import Layer, calls_by_weight
from prunec.passes.errors import InputError
from prunec.passes.factors import bias_name, factor_names, factors, full_rank, layer_of_factors
from prunec.passes.graphs import arguments, copied_graph, is_read_once, module_path, operator_name, set_argument
from prunec.passes.operators import WEIGHTED
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.tensors import like


def obstacles(program: Program) -> dict[str, str]:
    """Why each weight of a program's layers can't be decomposed, by its name; empty where it can.

    Grouped and transposed convolutions, recurrent layers and products are left whole, and so are weights that are
    tied, computed, read by several calls or masked: two layers in their place wouldn't be the same for all.
    """
    calls, tensors = calls_by_weight(program.graph), program.tensors()
    layers = {layer.weight: layer for layer in program.layers()}
    return {name: _obstacle(program, layer, calls.get(name, ()), tensors) for name, layer in layers.items()}


def _obstacle(program: Program, layer: Layer, calls: Sequence[Node], tensors: Mapping[str, Tensor]) -> str:
    name, operator = layer.weight, WEIGHTED.get(layer.operator)
    if operator is None:
        return f"{layer.operator} is no convolution or linear layer"
    weight = arguments(calls[0])["weight"]
    is_computed = weight.op != "get_attr" or name not in program.parameters()
    base = layer_of_factors(name)
    taken = [other for other in tensors if other != name and other.startswith((f"{base}0.", f"{base}1."))]
    reasons = {
        "it is a transposed convolution": operator.is_transposed,
        f"it is a convolution of {layer.groups} groups": layer.groups > 1,
        "its weight is computed": is_computed,
        "its weight is read several times, or has several names": not is_computed
        and (not is_read_once(weight, tensors) or sum(each is tensors[name] for each in tensors.values()) > 1),
        "its weight is masked": name in program.masks,
        "its weight is of rank 1": full_rank(layer.shape) == 1,
        f"the network has {', '.join(taken[:1])} already": taken,
    }
    return next((reason for reason, is_so in reasons.items() if is_so), "")


def factorized(program: Program, ranks: Mapping[str, int]) -> Program:
    """The program with two layers in the place of each whose weight is named, of these ranks.

    Args:
        program: The program, which stays as it is.
        ranks: Rank by the name of the weight.

    Raises:
        InputError: A layer isn't there, can't be decomposed, or can't have the rank.
    """
    if not ranks:
        return program
    reasons, graph, tensors = obstacles(program), copied_graph(program.graph), program.tensors()
    calls, new = calls_by_weight(graph), dict[str, dict[str, Tensor]]()
    for name, rank in ranks.items():
        if reason := reasons.get(name, "the network has no such layer"):
            raise InputError(f"{name} can't be decomposed: {reason}.")
        first, second = (like(tensors[name], factor) for factor in factors(name, tensors[name], rank))
        call = calls[name][0]
        bias = _own_bias(call, name, tensors)
        new[name] = dict(zip(factor_names(name), (first, second), strict=True))
        if bias is not None:
            new[str(bias.target)] = {bias_name(name): tensors[str(bias.target)]}
        _put_two(graph, call, name, first, second)
        if bias is not None:
            bias.target = bias_name(name)
    renamed = {n: t for name, tensor in tensors.items() for n, t in new.get(name, {name: tensor}).items()}
    return program.with_tensors(renamed, graph)


def _own_bias(call: Node, name: str, tensors: Mapping[str, Tensor]) -> Node | None:
    """The bias of a call that is its layer's own and nobody else's, so that it can have another name."""
    bias, own = arguments(call)["bias"], f"{layer_of_factors(name)}bias"
    if not isinstance(bias, Node) or bias.target != own or sum(each is tensors[own] for each in tensors.values()) > 1:
        return None
    reads = [node for node in call.graph.find_nodes(op="get_attr") if node.target == own]
    return bias if sum(len(node.users) for node in reads) == 1 else None


def _put_two(graph: Graph, call: Node, name: str, first: Tensor, second: Tensor) -> None:
    """Make a call that of the second layer, behind one of the first, in place."""
    bound, operator, path = arguments(call), WEIGHTED[operator_name(call.target)], module_path(call)
    weight: Node = bound["weight"]
    with graph.inserting_before(call):
        getters = [graph.get_attr(each) for each in factor_names(name)]
        inner = graph.node_copy(call, lambda node: node)
    for getter, value in zip(getters, (first, second), strict=True):
        getter.meta = {**weight.meta, "shapes": tuple(value.shape), "sample_shapes": tuple(value.shape)}
    set_argument(inner, "weight", getters[0])
    set_argument(inner, "bias", None)
    call.target = getattr(torch.ops.aten, operator.name).default
    call.args, call.kwargs = (inner, getters[1], bound["bias"]), {}
    inner.meta, call.meta = {**call.meta, "custom": {}}, {**call.meta}
    for key in ("shapes", "sample_shapes"):
        sizes = list(call.meta[key])
        sizes[len(sizes) - operator.spatial_dims - 1] = len(first)
        inner.meta[key] = tuple(sizes)
    if f"{path}." == layer_of_factors(name):
        inner.meta["module"], call.meta["module"] = f"{path}.0", f"{path}.1"
    graph.erase_node(weight)


def with_ranks(plan: PruningPlan, program: Program, ranks: Mapping[str, int]) -> PruningPlan:
    """A plan that decomposes weights, too; the program is the one that its slices go of."""
    tensors, sizes = program.tensors(), dict(plan.dense_sizes)
    sizes |= {name: dict(enumerate(tensors[name].shape)) for name in ranks}
    return replace(plan, ranks=dict(ranks), dense_sizes=sizes)


def kept_in_factors(plan: PruningPlan, program: Program) -> dict[str, dict[int, list[int]]]:
    """The slices that a plan keeps, by the names that tensors have in the program which it makes.

    Of a decomposed weight the second factor has its filters and the first its inputs.
    """
    tensors, own = program.tensors(), {f"{layer_of_factors(weight)}bias": weight for weight in plan.ranks}
    of_parameters: dict[str, dict[int, list[int]]] = {}
    for name, dims in plan.cuts.kept.items():
        if name in plan.ranks:
            first, second = factor_names(name)
            of_parameters |= {first: {1: dims[1]}} if 1 in dims else {}
            of_parameters |= {second: {0: dims[0]}} if 0 in dims else {}
        else:
            renamed = bias_name(own[name]) if name in own else name
            of_parameters[renamed if renamed in tensors else name] = dims
    return of_parameters
