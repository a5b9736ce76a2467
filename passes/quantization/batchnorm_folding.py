"""Batch norms folded into the layers before them: grids are for the weights that engines compute with."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from prunec.passes.base import PassResult
from prunec.passes.graphs import arguments, calls, copied_graph, is_read_once, operator_name
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.biases import set_bias
from prunec.passes.tensors import like


def fold_batch_norms(program: Program) -> PassResult:
    """Multiply batch norms in their inference form into the layers whose outputs nothing else reads.

    A batch norm stays where its layer's weight is computed or used elsewhere too, or where it trains in inference.
    Weights keep their names and masks; a layer without a bias gets one.
    """
    graph, tensors = copied_graph(program.graph), dict(program.tensors())
    count = 0
    for norm in list(calls(graph, "batch_norm")):
        layer = arguments(norm)["input"]
        if _can_fold(layer, norm, tensors):
            _fold(layer, norm, tensors)
            norm.replace_all_uses_with(layer)
            graph.erase_node(norm)
            count += 1
    for node in list(graph.find_nodes(op="get_attr")):
        if not node.users and count:
            graph.erase_node(node)
    read = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    kept = {name: tensor for name, tensor in tensors.items() if name in read} if count else tensors
    result = program.with_tensors(kept, graph)
    constants = tuple(name for name in program.constants if name in kept)
    return PassResult(replace(result, constants=constants), count > 0, {"folded": count})


def _can_fold(layer: Node, norm: Node, tensors: dict[str, Tensor]) -> bool:
    if operator_name(layer.target) not in WEIGHTED or len(layer.users) > 1 or arguments(norm)["training"]:
        return False
    bound, kind = arguments(layer), WEIGHTED[operator_name(layer.target)]
    weight, bias = bound["weight"], bound.get("bias")
    own = [node for node in (weight, bias) if node is not None]
    plain = all(is_read_once(node, tensors) for node in own)
    is_grouped = kind.is_transposed and int(bound.get("groups", 1)) > 1
    has_channels_second = kind.spatial_dims > 0 or len(layer.meta["sample_shapes"]) == 2
    known = all(arguments(norm)[name] is not None for name in ("running_mean", "running_var"))
    return plain and not is_grouped and has_channels_second and known


@torch.no_grad()
def _fold(layer: Node, norm: Node, tensors: dict[str, Tensor]) -> None:
    bound, given = arguments(layer), arguments(norm)
    weight_name = str(bound["weight"].target)
    weight = tensors[weight_name]

    def value(name: str, default: float) -> Tensor:
        node = given[name]
        if node is None:
            return torch.full((weight.shape[axis],), default, dtype=torch.float64)
        return tensors[str(node.target)].detach().double()

    axis = WEIGHTED[operator_name(layer.target)].filter_dim
    factor = value("weight", 1) / (value("running_var", 1) + given["eps"]).sqrt()
    bias = bound.get("bias")
    old = tensors[str(bias.target)].detach().double() if bias is not None else torch.zeros_like(factor)
    new = (old - value("running_mean", 0)) * factor + value("bias", 0)
    shape = [-1 if dim == axis else 1 for dim in range(weight.ndim)]
    tensors[weight_name] = like(weight, (weight.detach().double() * factor.view(shape)).to(weight.dtype))
    set_bias(layer, new.to(weight.dtype), tensors)
