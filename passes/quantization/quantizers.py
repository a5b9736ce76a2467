"""Programs that compute with values on grids: quantizers in the graph, put in, read and taken out again.

A quantizer is torch's own fake quantization: it rounds to the grid and stays in floating point, its derivative is that
of clipping (straight-through; Jacob et al., CVPR 2018), and exported it is a pair of QuantizeLinear and
DequantizeLinear.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, calls, copied_graph, operator_name
from prunec.passes.program import Program
from prunec.passes.quantization.grids import WEIGHT_LIMIT, Form, Grid, Range, grid_of, weight_scales
from prunec.passes.quantization.placement import Placement

PER_TENSOR, PER_CHANNEL = "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"
RELU = torch.ops.aten.relu.default
#: Activations that clip, and the arguments that say where; None where that is not in the arguments.
CLIPS: Mapping[str, tuple[str | float | None, str | float | None]] = {
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "hardtanh": ("min_val", "max_val"),
    "clamp": ("min", "max"),
    "clamp_min": ("min", None),
    "clamp_max": (None, "max"),
}
#: Share of a step up to which a bound within the grid rounds to its end, as what it clips does.
_ALIKE = 0.49
_SUFFIXES = ("_scale", "_zero_point")


@dataclass(frozen=True, eq=False)
class Quantizer:
    """A quantizer of a graph.

    Attributes:
        node: The call.
        source: The node whose value it puts on a grid.
        grid: Its grid; None where there is one for every channel.
    """

    node: Node
    source: Node
    grid: Grid | None


def quantize(program: Program, placement: Placement, ranges: Mapping[str, Range], form: Form) -> Program:
    """The program with its values on grids.

    Args:
        program: The program that the placement is of.
        placement: The values.
        ranges: The range of each family of the placement's sites.
        form: Form of the grids of activations.
    """
    graph, tensors = copied_graph(program.graph), dict(program.tensors())
    nodes = {node.name: node for node in graph.nodes}
    for site in placement.sites:
        _insert(graph, nodes[site.source], {nodes[name] for name in site.readers}, grid_of(ranges[site.family], form))
    done: dict[str, Node] = {}
    for weight in placement.weights:
        source = nodes[weight.source]
        if weight.source not in done:
            done[weight.source] = _of_weight(graph, tensors, source, weight.axis, _value(program, source))
        nodes[weight.call].replace_input_with(source, done[weight.source])
    return program.with_tensors(tensors, graph)


def _insert(graph: Graph, source: Node, readers: set[Node], grid: Grid) -> None:
    with graph.inserting_after(source):
        quantizer = graph.call_function(
            torch.ops.aten.fake_quantize_per_tensor_affine.default,
            (source, grid.scale, grid.zero_point, grid.least, grid.most),
        )
    quantizer.meta = dict(source.meta)
    for reader in readers:
        reader.replace_input_with(source, quantizer)


def _of_weight(graph: Graph, tensors: dict[str, Tensor], source: Node, axis: int | None, value: Tensor) -> Node:
    """Put a weight on a grid right after it; scales and zero points become buffers beside it."""
    scales = weight_scales(value.unsqueeze(0) if axis is None else value, 0 if axis is None else axis)
    with graph.inserting_after(source):
        if axis is None:
            arguments_ = (source, float(scales[0]), 0, -WEIGHT_LIMIT - 1, WEIGHT_LIMIT)
            node = graph.call_function(torch.ops.aten.fake_quantize_per_tensor_affine.default, arguments_)
        else:
            stored = [scales, torch.zeros(len(scales), dtype=torch.int32)]
            read = []
            for suffix, tensor in zip(_SUFFIXES, stored, strict=True):
                name = free_name(f"{source.target if source.op == 'get_attr' else source.name}{suffix}", tensors)
                tensors[name] = tensor
                getter = graph.get_attr(name)
                shape = tuple(tensor.shape)
                getter.meta = {**source.meta, "shapes": shape, "sample_shapes": shape, "dtype": tensor.dtype}
                read.append(getter)
            node = graph.call_function(
                torch.ops.aten.fake_quantize_per_channel_affine.default,
                (source, *read, axis, -WEIGHT_LIMIT - 1, WEIGHT_LIMIT),
            )
            for getter in read:
                node.prepend(getter)
    node.meta = dict(source.meta)
    return node


def free_name(name: str, tensors: Mapping[str, Tensor]) -> str:
    """The name, or one made of it that no tensor has."""
    while name in tensors:
        name += "_"
    return name


@torch.no_grad()
def _value(program: Program, source: Node) -> Tensor:
    """The value of a weight, which depends on no input."""
    tensors = program.tensors()

    def value(node: Node) -> Any:
        if node.op == "get_attr":
            return tensors[str(node.target)]
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    found: Tensor = value(next(node for node in program.graph.nodes if node.name == source.name))
    return found.detach()


def fold_clips(graph: Graph, tensors: Mapping[str, Tensor]) -> None:
    """Take out activations that clip no more than the grid after them does, in place; the function stays the same.

    Only one that nothing but quantizers reads goes. Of a clip whose lower bound a signed grid doesn't have, Relu stays.

    Args:
        graph: The graph.
        tensors: What bounds of clips are read from, by the targets of the nodes that read it.
    """
    for node in reversed(list(calls(graph, *CLIPS))):
        grids = [quantizer.grid for quantizer in map(quantizer_of, node.users) if quantizer is not None]
        bounds = clip_bounds(node, tensors)
        if bounds is None or not grids or len(grids) < len(node.users) or None in grids:
            continue
        low, high = bounds
        if not all(grid is not None and high >= grid.range.high - grid.scale * _ALIKE for grid in grids):
            continue
        if all(grid is not None and low <= grid.range.low + grid.scale * _ALIKE for grid in grids):
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)
        elif low == 0 and node.target != RELU:
            node.target, node.args, node.kwargs = RELU, (node.all_input_nodes[0],), {}


def clip_bounds(node: Node, tensors: Mapping[str, Tensor] | None = None) -> tuple[float, float] | None:
    """Where an activation clips at the latest; None where it doesn't, or that is no number and no tensor of these."""
    if node.op != "call_function" or operator_name(node.target) not in CLIPS:
        return None
    bound, bounds = arguments(node), []
    sides = ((-math.inf, torch.amax), (math.inf, torch.amin))
    for given, (without, strictest) in zip(CLIPS[operator_name(node.target)], sides, strict=True):
        value = bound[given] if isinstance(given, str) else given
        if isinstance(value, Node) and tensors is not None and str(value.target) in tensors:
            value = float(strictest(tensors[str(value.target)]))
        bounds.append(without if value is None else value)
    return None if any(isinstance(value, Node | Tensor) for value in bounds) else (float(bounds[0]), float(bounds[1]))


def quantizers(graph: Graph) -> Iterator[Quantizer]:
    """The quantizers of a graph, in the order of execution."""
    yield from (found for found in map(quantizer_of, calls(graph, PER_TENSOR, PER_CHANNEL)) if found is not None)


def input_grids(graph: Graph) -> dict[str, Grid]:
    """The grids that a network's inputs are put on, by the name of the input's node."""
    found = (quantizer for quantizer in quantizers(graph) if quantizer.source.op == "placeholder")
    return {quantizer.source.name: quantizer.grid for quantizer in found if quantizer.grid is not None}


def is_quantized(graph: Graph) -> bool:
    """Whether values of a graph are on grids."""
    return next(calls(graph, PER_TENSOR, PER_CHANNEL), None) is not None


def is_on_grids(call: Node) -> bool:
    """Whether a layer computes with whole numbers: what it multiplies, activations and weights, comes from grids."""
    return sum(quantizer_of(node) is not None for node in call.all_input_nodes) > 1


def quantizer_of(node: Node) -> Quantizer | None:
    """A node as a quantizer; None where it is none."""
    if node.op != "call_function" or operator_name(node.target) not in (PER_TENSOR, PER_CHANNEL):
        return None
    bound = arguments(node)
    grid = None
    if operator_name(node.target) == PER_TENSOR and not isinstance(bound["scale"], Node):
        grid = Grid(float(bound["scale"]), int(bound["zero_point"]), int(bound["quant_min"]), int(bound["quant_max"]))
    return Quantizer(node, bound["self"], grid)


def without_quantizers(program: Program) -> Program:
    """The program that computes in floating point what a quantized one computes on grids."""
    graph, gone = copied_graph(program.graph), set[str]()
    for quantizer in list(quantizers(graph)):
        quantizer.node.replace_all_uses_with(quantizer.source)
        graph.erase_node(quantizer.node)
    for node in list(graph.find_nodes(op="get_attr")):
        if not node.users and str(node.target).endswith(_SUFFIXES):
            gone.add(str(node.target))
            graph.erase_node(node)
    result = program.with_tensors({n: t for n, t in program.tensors().items() if n not in gone}, graph)
    return replace(result, masks=dict(program.masks))
