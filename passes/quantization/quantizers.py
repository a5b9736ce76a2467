"""Programs that compute with values on grids: quantizers in the graph, put in, read and taken out again.

A quantizer is fake quantization, torch's own or that of `own_operators`: it rounds to the grid and stays in floating
point, its derivative is that of clipping (straight-through; Jacob et al., CVPR 2018), and exported it is a pair of
QuantizeLinear and DequantizeLinear.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, calls, copied_graph, operator_name
from prunec.passes.own_operators import FLOAT8_PER_CHANNEL, FLOAT8_PER_TENSOR, INT4_BLOCKS
from prunec.passes.program import Program
from prunec.passes.quantization.grids import (
    WEIGHT_LIMIT,
    Form,
    Grid,
    Range,
    block_scales,
    float8_grid,
    grid_of,
    weight_scales,
)
from prunec.passes.quantization.placement import Placement, WeightSite, from_inputs

_INT8_PER_TENSOR = torch.ops.aten.fake_quantize_per_tensor_affine.default
_INT8_PER_CHANNEL = torch.ops.aten.fake_quantize_per_channel_affine.default
#: The operators of quantizers, and the precision of a layer whose values and weights are rounded by them.
ROUNDING: Mapping[str, str] = {
    operator_name(operator): precision
    for precision, operators in {
        "int8": (_INT8_PER_TENSOR, _INT8_PER_CHANNEL),
        "fp8": (FLOAT8_PER_TENSOR, FLOAT8_PER_CHANNEL),
        "int4": (INT4_BLOCKS,),
    }.items()
    for operator in operators
}
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

    @property
    def precision(self) -> str:
        """The precision that its grid is for."""
        return ROUNDING[operator_name(self.node.target)]


def quantize(program: Program, placement: Placement, ranges: Mapping[str, Range], form: Form) -> Program:
    """The program with its values on grids.

    Args:
        program: The program that the placement is of.
        placement: The values.
        ranges: The range of each family of the placement's sites.
        form: Form of the grids.
    """
    graph, tensors = copied_graph(program.graph), dict(program.tensors())
    nodes = {node.name: node for node in graph.nodes}
    for site in placement.sites:
        _insert(graph, nodes[site.source], {nodes[name] for name in site.readers}, grid_of(ranges[site.family], form))
    done: dict[str, Node] = {}
    for weight in placement.weights:
        source = nodes[weight.source]
        if weight.source not in done:
            value = _value(program, source)
            if weight.block is None:
                done[weight.source] = _of_weight(graph, tensors, source, weight.axis, value, form)
            else:
                done[weight.source] = _in_blocks(graph, tensors, source, weight, value)
        nodes[weight.call].replace_input_with(source, done[weight.source])
    return program.with_tensors(tensors, graph)


def _insert(graph: Graph, source: Node, readers: set[Node], grid: Grid) -> None:
    quantizer = _on_grid(graph, source, grid)
    for reader in readers:
        reader.replace_input_with(source, quantizer)


def _on_grid(graph: Graph, source: Node, grid: Grid) -> Node:
    """Put a tensor on a grid right after it."""
    whole = (grid.zero_point, grid.least, grid.most)
    with graph.inserting_after(source):
        if grid.is_float8:
            node = graph.call_function(FLOAT8_PER_TENSOR, (source, grid.scale))
        else:
            node = graph.call_function(_INT8_PER_TENSOR, (source, grid.scale, *whole))
    node.meta = dict(source.meta)
    return node


def _of_weight(
    graph: Graph, tensors: dict[str, Tensor], source: Node, axis: int | None, value: Tensor, form: Form
) -> Node:
    """Put a weight on a grid right after it; scales and zero points become buffers beside it."""
    if axis is None:
        scale = float(weight_scales(value.unsqueeze(0), 0, form)[0])
        is_float8 = form == "float8"
        whole = Grid(scale, 0, -WEIGHT_LIMIT - 1, WEIGHT_LIMIT)
        return _on_grid(graph, source, float8_grid(scale) if is_float8 else whole)
    scales = weight_scales(value, axis, form)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    with graph.inserting_after(source):
        if form == "float8":
            read = [_beside(source, tensors, "_scale", scales)]
            node = graph.call_function(FLOAT8_PER_CHANNEL, (source, *read, axis))
        else:
            read = [_beside(source, tensors, *each) for each in zip(_SUFFIXES, (scales, zeros), strict=True)]
            ends = (-WEIGHT_LIMIT - 1, WEIGHT_LIMIT)
            node = graph.call_function(_INT8_PER_CHANNEL, (source, *read, axis, *ends))
    for getter in read:
        node.prepend(getter)
    node.meta = dict(source.meta)
    return node


def _in_blocks(graph: Graph, tensors: dict[str, Tensor], source: Node, site: WeightSite, value: Tensor) -> Node:
    """Put the weight of a linear layer in blocks of INT4 right after it."""
    assert site.axis is not None
    assert site.block is not None
    axis = 1 - site.axis
    with graph.inserting_after(source):
        scale = _beside(source, tensors, "_scale", block_scales(value, axis, site.block))
        node = graph.call_function(INT4_BLOCKS, (source, scale, axis))
    node.prepend(scale)
    node.meta = dict(source.meta)
    return node


def _beside(source: Node, tensors: dict[str, Tensor], suffix: str, tensor: Tensor) -> Node:
    """A buffer beside a weight, as the node that reads it."""
    name = free_name(f"{source.target if source.op == 'get_attr' else source.name}{suffix}", tensors)
    tensors[name] = tensor
    getter, shape = source.graph.get_attr(name), tuple(tensor.shape)
    getter.meta = {**source.meta, "shapes": shape, "sample_shapes": shape, "dtype": tensor.dtype}
    return getter


def free_name(name: str, tensors: Mapping[str, Tensor]) -> str:
    """The name, or one made of it that no tensor has."""
    while name in tensors:
        name += "_"
    return name


def with_weights_computed(program: Program) -> Program:
    """The program with a tensor in place of each computation of a weight that is put on a grid.

    It has neither operators nor tensors that nothing reads, nor further names of tensors that are read under another.
    """
    graph, tensors = copied_graph(program.graph), dict(program.tensors())
    activations = from_inputs(graph)
    for quantizer in list(quantizers(graph)):
        source = quantizer.source
        if source.op == "get_attr" or source in activations:
            continue
        name = free_name(source.name, tensors)
        tensors[name] = _value(program, source).contiguous()
        with graph.inserting_before(quantizer.node):
            stored = graph.get_attr(name)
        stored.meta = dict(source.meta)
        quantizer.node.replace_input_with(source, stored)
    graph.eliminate_dead_code()
    read = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    return program.with_tensors({name: tensor for name, tensor in tensors.items() if name in read}, graph)


@torch.no_grad()
def _value(program: Program, source: Node) -> Tensor:
    """The value of a weight, which depends on no input."""
    tensors = program.tensors()

    def value(node: Node) -> Any:
        if node.op == "get_attr":
            return tensors[str(node.target)]
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    computed: Tensor = value(next(node for node in program.graph.nodes if node.name == source.name))
    return computed.detach()


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
    yield from (quantizer for quantizer in map(quantizer_of, calls(graph, *ROUNDING)) if quantizer is not None)


def input_grids(graph: Graph) -> dict[str, Grid]:
    """The grids that a network's inputs are put on, by the name of the input's node."""
    of_inputs = (quantizer for quantizer in quantizers(graph) if quantizer.source.op == "placeholder")
    return {quantizer.source.name: quantizer.grid for quantizer in of_inputs if quantizer.grid is not None}


def is_quantized(graph: Graph) -> bool:
    """Whether values of a graph are on grids."""
    return next(quantizers(graph), None) is not None


def precision_on_grids(call: Node) -> str | None:
    """The precision of a layer on grids: what it multiplies comes from them, activations and weights; None elsewhere.

    In INT4 it is the weights alone.
    """
    precisions = [quantizer.precision for quantizer in map(quantizer_of, call.all_input_nodes) if quantizer is not None]
    return precisions[0] if len(precisions) > 1 or "int4" in precisions else None


def quantizer_of(node: Node) -> Quantizer | None:
    """A node as a quantizer; None where it is none."""
    if node.op != "call_function" or operator_name(node.target) not in ROUNDING:
        return None
    bound, grid = arguments(node), None
    if node.target is FLOAT8_PER_TENSOR:
        grid = float8_grid(float(bound["scale"]))
    elif "quant_min" in bound and "axis" not in bound and not isinstance(bound["scale"], Node):
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
