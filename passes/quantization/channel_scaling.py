"""Channels whose scale is free: a factor on what writes them and its inverse on what reads them change no output.

What lies between must keep factors: f(a * x) = a * f(x) for every channel and a > 0, as Relu, pooling and sums do. A
clip keeps them once its bounds are scaled as well, channel by channel.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx import Node

from prunec.passes.graphs import arguments, copied_graph, is_read_once, operator_name
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import CLIPS, RELU, clip_bounds, free_name
from prunec.passes.tensors import with_values

Item = TypeVar("Item")
#: Operators that keep positive factors of channels, axes in their places.
_HOMOGENEOUS = frozenset({
    "relu", "leaky_relu", "prelu", "dropout", "alias", "clone", "contiguous", "max_pool1d", "max_pool2d", "max_pool3d",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d",
})  # fmt: skip
_NORMS = ("layer_norm", "batch_norm")
_SUMS, _RESHAPES = ("add", "add_"), ("view", "reshape", "flatten", "squeeze")


@dataclass(frozen=True)
class Writer:
    """What yields channels: axis 0 of its weight counts them, and its bias, if it has one."""

    call: str
    operator: str
    weight: str
    bias: str | None


@dataclass(frozen=True)
class Reader:
    """A layer that multiplies channels with axis 1 of its weight, which a convolution of groups has in parts.

    Attributes:
        call: Name of the node.
        source: Name of the node whose value it reads.
        axis: The axis of channels of that value.
        weight: Name of the weight.
        groups: Number of groups of the convolution, as many as channels where it is depthwise.
    """

    call: str
    source: str
    axis: int
    weight: str
    groups: int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that have to be scaled together, in everything that writes, clips and reads them."""

    channels: int
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    clips: tuple[str, ...]


def channel_groups(program: Program) -> tuple[ChannelGroup, ...]:
    """Channels whose scale is free, in the order of execution; what a layer or norm writes, or a stream of several.

    Left out are channels that the network gives back, that meet an operator which doesn't keep factors, or of which a
    weight is computed or used elsewhere too.
    """
    return _Grouping(program).groups()


def scaled(program: Program, factors: Mapping[ChannelGroup, Tensor]) -> Program:
    """The program with groups of channels multiplied by positive factors, float64 (channels,): the same function.

    Weights keep their names and masks. A clip becomes one of each channel, its bounds buffers of the program.
    """
    graph, tensors = copied_graph(program.graph), program.tensors()
    values = values_of(program, factors)
    nodes = {node.name: node for node in graph.nodes}
    for group, factor in factors.items():
        scale_values(group, factor, values)
    tensors = with_values(tensors, {name: value.to(tensors[name].dtype) for name, value in values.items()})
    for group, factor in factors.items():
        for clip in group.clips:
            _scale_clip(nodes[clip], factor, group.readers[0].axis, tensors)
    return program.with_tensors(tensors, graph)


def values_of(program: Program, groups: Iterable[ChannelGroup]) -> dict[str, Tensor]:
    """The weights and biases that groups name, in float64."""
    groups = tuple(groups)
    names = {each.weight for group in groups for each in group.readers}
    names |= {name for group in groups for each in group.writers for name in (each.weight, each.bias) if name}
    return {name: tensor.detach().double() for name, tensor in program.tensors().items() if name in names}


def scale_values(group: ChannelGroup, factor: Tensor, values: dict[str, Tensor]) -> None:
    """Multiply what writes a group's channels by factors, and divide by them what reads the channels."""
    for writer in group.writers:
        for name in filter(None, (writer.weight, writer.bias)):
            values[name] = values[name] * factor.view(-1, *[1] * (values[name].ndim - 1))
    for reader in group.readers:
        parts = _in_groups(values[reader.weight], reader.groups) / factor.view(reader.groups, 1, -1, 1)
        values[reader.weight] = parts.reshape(values[reader.weight].shape)


def written_range(group: ChannelGroup, values: Mapping[str, Tensor]) -> Tensor:
    """The largest magnitude of what writes each channel, float64 (channels,)."""
    return torch.stack([values[each.weight].abs().reshape(group.channels, -1).amax(1) for each in group.writers]).amax(
        0
    )


def read_range(group: ChannelGroup, values: Mapping[str, Tensor]) -> Tensor:
    """The largest magnitude of the weights that read each channel, float64 (channels,)."""
    ranges = [_in_groups(values[each.weight].abs(), each.groups).amax((1, 3)).flatten() for each in group.readers]
    return torch.stack(ranges).amax(0)


def _in_groups(weight: Tensor, groups: int) -> Tensor:
    """A weight (filters, channels / groups, ...) as (groups, filters / groups, channels / groups, positions)."""
    return weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)


def _scale_clip(clip: Node, factor: Tensor, axis: int, tensors: dict[str, Tensor]) -> None:
    """Give a clip bounds of its own for every channel, in place. A lower bound of 0 stays Relu, which engines fuse."""
    bounds = clip_bounds(clip)
    assert bounds is not None
    low, high = bounds
    source, graph, dtype = clip.all_input_nodes[0], clip.graph, clip.meta["dtype"]
    if low == 0:
        with graph.inserting_before(clip):
            relu = graph.call_function(RELU, (source,))
        relu.meta, source, low = dict(clip.meta), relu, -math.inf
    shape = [-1] + [1] * (len(clip.meta["sample_shapes"]) - axis - 1)
    read: list[Node | None] = []
    for suffix, bound in (("min", low), ("max", high)):
        if math.isinf(bound):
            read.append(None)
            continue
        name = free_name(f"{clip.name}_{suffix}", tensors)
        tensors[name] = (factor * bound).view(shape).to(dtype)
        with graph.inserting_before(clip):
            getter = graph.get_attr(name)
        sizes = tuple(tensors[name].shape)
        getter.meta = {**clip.meta, "shapes": sizes, "sample_shapes": sizes}
        read.append(getter)
    clip.target, clip.args, clip.kwargs = torch.ops.aten.clamp.Tensor, (source, *read), {}


class _Grouping:
    """Sets of values whose channels have to be scaled together."""

    def __init__(self, program: Program) -> None:
        self.tensors = program.tensors()
        self._parent: dict[Node, Node] = {}
        self._axis: dict[Node, int] = {}
        self._fixed: set[Node] = set()
        self._writers: dict[Node, list[Writer]] = defaultdict(list)
        self._readers: dict[Node, list[Reader]] = defaultdict(list)
        self._clips: dict[Node, list[str]] = defaultdict(list)
        for node in program.graph.nodes:
            if node.op != "get_attr":
                self._follow(node)

    def groups(self) -> tuple[ChannelGroup, ...]:
        roots = dict.fromkeys(self._root(node) for node in self._axis)
        fixed = {self._root(node) for node in self._fixed if node in self._axis}
        return tuple(self._group(root) for root in roots if root not in fixed and self._of(self._readers, root))

    def _group(self, root: Node) -> ChannelGroup:
        axis, shape = self._axis[root], root.meta["sample_shapes"]
        return ChannelGroup(
            shape[axis],
            tuple(self._of(self._writers, root)),
            tuple(self._of(self._readers, root)),
            tuple(self._of(self._clips, root)),
        )

    def _of(self, lists: Mapping[Node, list[Item]], root: Node) -> list[Item]:
        return [item for node, items in lists.items() if self._root(node) is root for item in items]

    def _follow(self, node: Node) -> None:
        operator = operator_name(node.target)
        if operator in WEIGHTED and self._is_own(node):
            self._layer(node)
        elif operator in _NORMS and self._is_own(node) and (axis := _norm_axis(node)) is not None:
            self._fix(node.all_input_nodes)
            self._begin(node, axis)
        elif not (node.op == "call_function" and self._passes_on(node)):
            self._fix([node, *node.all_input_nodes])

    def _is_own(self, call: Node) -> bool:
        """Whether a call alone reads its weight and bias, and the weight's filters are along its first axis."""
        bound, operator = arguments(call), operator_name(call.target)
        weight, bias = bound["weight"], bound.get("bias")
        is_plain = operator not in WEIGHTED or not WEIGHTED[operator].is_transposed
        own = [each for each in (weight, bias) if each is not None]
        return is_plain and weight is not None and all(is_read_once(each, self.tensors) for each in own)

    def _layer(self, call: Node) -> None:
        bound, spatial = arguments(call), WEIGHTED[operator_name(call.target)].spatial_dims
        read = bound["input"]
        axis = len(call.meta["sample_shapes"]) - spatial - 1
        if self._axis.get(read) == axis:
            reader = Reader(call.name, read.name, axis, str(bound["weight"].target), int(bound.get("groups", 1)))
            self._readers[read].append(reader)
        else:
            self._fix([read])
        self._begin(call, axis)

    def _begin(self, call: Node, axis: int) -> None:
        """Channels begin at what a call writes."""
        bound = arguments(call)
        self._axis[call] = axis
        bias = None if bound.get("bias") is None else str(bound["bias"].target)
        writer = Writer(call.name, operator_name(call.target), str(bound["weight"].target), bias)
        self._writers[call].append(writer)

    def _passes_on(self, node: Node) -> bool:
        """Take a node into the group of what it reads; False where its operator doesn't keep factors."""
        read = node.all_input_nodes
        if not read or read[0] not in self._axis or not isinstance(node.meta.get("sample_shapes"), tuple):
            return False
        axis = self._axis[read[0]]
        if not self._keeps_factors(node, operator_name(node.target), axis):
            return False
        self._axis[node] = axis
        for each in read:
            if each in self._axis:
                self._parent[self._root(each)] = self._root(node)
        return True

    def _keeps_factors(self, node: Node, operator: str, axis: int) -> bool:
        first, *others = node.all_input_nodes
        shapes: list[Any] = [each.meta.get("sample_shapes") for each in (node, first, *others)]
        if operator in CLIPS:
            return self._keeps_factors_scaled(node)
        if operator in _SUMS:
            return len(others) == 1 and shapes[1] == shapes[2] and self._axis.get(others[0]) == axis
        if operator in _RESHAPES:
            return _keeps_axis(shapes[1], shapes[0], axis)
        if operator == "mean":
            return _is_mean_behind(node, axis)
        return operator in _HOMOGENEOUS and all(each.op == "get_attr" for each in others)

    def _keeps_factors_scaled(self, clip: Node) -> bool:
        """Whether a clip keeps factors once its bounds are scaled, which have to be numbers around 0."""
        bounds = clip_bounds(clip)
        if bounds is None or not bounds[0] <= 0 <= bounds[1]:
            return False
        if any(math.isfinite(bound) and bound for bound in bounds):
            self._clips[clip].append(clip.name)
        return True

    def _fix(self, nodes: Iterable[Node]) -> None:
        self._fixed.update(nodes)

    def _root(self, node: Node) -> Node:
        while (parent := self._parent.get(node, node)) is not node:
            node = parent
        return node


def _norm_axis(norm: Node) -> int | None:
    """The axis that the scale of a norm is along; None where it has several."""
    if operator_name(norm.target) == "batch_norm":
        return 1
    rank, normalized = len(norm.meta["sample_shapes"]), arguments(norm)["normalized_shape"]
    return rank - 1 if len(normalized) == 1 else None


def _keeps_axis(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> bool:
    """Whether a reshape leaves the axis of channels in its place, changing axes of one value behind it alone."""
    is_same = before[: axis + 1] == after[: axis + 1]
    return is_same and (before == after or math.prod(before[axis + 1 :]) == 1)


def _is_mean_behind(node: Node, axis: int) -> bool:
    """Whether a mean is one over axes behind that of channels."""
    rank, dims = len(arguments(node)["self"].meta["sample_shapes"]), arguments(node)["dim"]
    return bool(dims) and all(dim % rank > axis for dim in dims)
