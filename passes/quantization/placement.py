"""Where a network's values are put on grids, so that engines compute it with kernels of 8 bits.

NVIDIA's engines and ONNX Runtime run a layer in 8 bits where all that it reads comes from a grid: its input and its
weight, both operands of a product or of a sum, all parts of a concatenation, which have one grid then. What the network
gives back is left alone, and so are norms, softmax and whatever else has no such kernel.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch.fx import Graph, Node

from prunec.passes.cost import Layer, layer_calls
from prunec.passes.graphs import arguments, calls, module_path, operator_name
from prunec.passes.operators import RECURRENT, WEIGHTED
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.products import WeightProduct, products
from prunec.passes.program import Program
from prunec.passes.quantization.grids import BLOCKS, Form, block_of
from prunec.passes.quantization.overwriting import Overwriting
from prunec.passes.ratios import check_globs, matches
from prunec.passes.roles import ROLES, expand_roles

#: Operators that engines fuse behind a layer: the grid stands after them, not between.
ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"})
#: Operators that give back values of what they read, in another order or fewer of them: they leave a grid as it is.
_MOVES = frozenset({
    "max_pool1d", "max_pool2d", "max_pool3d", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze",
    "unsqueeze", "permute", "transpose", "t", "contiguous", "clone", "dropout", "alias", "slice", "select", "getitem",
    "split", "chunk", "split_with_sizes", "channel_shuffle", "pixel_shuffle", "expand",
})  # fmt: skip
#: Averages, which engines take on grids.
_AVERAGES = frozenset({
    "mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
})  # fmt: skip
#: Why a layer stays in higher precision that was asked for by name, and one that whole numbers cost too much.
KEPT, SENSITIVE = "kept by name", "kept by sensitivity"
#: Why a layer stays in higher precision where weights of linear layers alone are on grids.
NOT_LINEAR = "no linear layer"
_SUMS, _JOINS = ("add", "add_"), ("cat", "concat", "concatenate")


@dataclass(frozen=True)
class Site:
    """A tensor that is put on a grid.

    Attributes:
        source: Name of the node that yields it.
        readers: Names of the nodes that read it on its grid; others read it as it is.
        family: Name that sites with one common grid share.
    """

    source: str
    readers: tuple[str, ...]
    family: str


@dataclass(frozen=True)
class WeightSite:
    """A weight that is put on a grid, one for every output channel.

    Attributes:
        call: Name of the node that multiplies with it.
        source: Name of the node that yields it.
        axis: Its axis of output channels; None for one grid for all of it.
        block: Number of weights along the other axis that have one scale; None where all of a channel have.
    """

    call: str
    source: str
    axis: int | None
    block: int | None = None


@dataclass(frozen=True)
class LayerPrecision:
    """What a layer computes in.

    Attributes:
        layer: Path of the layer.
        operator: ATen operator.
        is_quantized: Whether it computes on grids.
        reason: Why not; empty where it does.
        macs: Multiply-accumulates for one sample.
    """

    layer: str
    operator: str
    is_quantized: bool
    reason: str
    macs: int


@dataclass(frozen=True)
class Placement:
    """All tensors of a network that are put on grids, and what that means for its layers, in their order."""

    sites: tuple[Site, ...]
    weights: tuple[WeightSite, ...]
    layers: tuple[LayerPrecision, ...]


def place(
    program: Program, kept: Sequence[str] = (), sensitive: Collection[str] = (), form: Form = "symmetric"
) -> Placement:
    """The placement for a program in its inference form.

    Args:
        program: The program, batch norms folded where they can be.
        kept: Globs over layers, or roles, that stay in higher precision; so does a product of activations, as in
            attention, where they match the path of the module that computes it.
        sensitive: Paths of further layers that do.
        form: Form of the grids: for "int4" weights of linear layers alone are placed.

    Raises:
        UsageError: A glob matches no layer and no module with a product of activations.
    """
    placing = _Placing(program, kept, sensitive, weights_alone=form == "int4")
    return Placement(placing.sites(), tuple(placing.weights), tuple(placing.layers))


class _Placing:
    """The reads that happen on grids: (reader, what it reads), and what has to have a common grid."""

    def __init__(
        self, program: Program, kept: Sequence[str], sensitive: Collection[str], *, weights_alone: bool
    ) -> None:
        self.graph, self._weights_alone = program.graph, weights_alone
        expanded = expand_roles(self.graph, kept)
        names = [layer.name for layer in program.layers()]
        activation_products = [each for each in products(self.graph) if not isinstance(each, WeightProduct)]
        names += [module_path(each.node) for each in activation_products]
        check_globs([glob for glob in expanded if glob not in ROLES], names, "keep")
        self._activations = from_inputs(self.graph)
        self._order = {node: position for position, node in enumerate(self.graph.nodes)}
        self._overwriting = Overwriting(self.graph)
        self._reads: dict[Node, set[Node]] = defaultdict(set)
        self._family: dict[Node, Node] = {}
        self._kept: set[Node] = set()
        self.weights: list[WeightSite] = []
        self.layers: list[LayerPrecision] = []
        self._outputs = set(self.graph.output_node().all_input_nodes)
        for call, layer in layer_calls(self.graph, program.samples_of_shapes):
            reason = KEPT if matches([layer.name], expanded) else SENSITIVE if layer.name in sensitive else ""
            self._layer(call, layer, reason)
        if weights_alone:
            return
        for product in activation_products:
            if not matches([module_path(product.node)], expanded):
                self._read_all(product.node, [tensor for tensor, _ in product.operands])
        self._follow(_masked_calls(program) - self._kept)

    def sites(self) -> tuple[Site, ...]:
        """The sites in the order of execution."""
        reads = sorted(self._reads.items(), key=lambda each: self._order[each[0]])
        return tuple(
            Site(source.name, tuple(reader.name for reader in self._sorted(readers)), self._root(source).name)
            for source, readers in reads
        )

    def _sorted(self, nodes: set[Node]) -> list[Node]:
        return sorted(nodes, key=self._order.__getitem__)

    def _layer(self, call: Node, layer: Layer, reason: str) -> None:
        """A layer reads input and weight on grids, unless there is a reason to keep it or it has no such kernel."""
        operands = None
        if reason:
            self._kept.add(call)
        else:
            operands = _operands(call, self.graph)
            reason = "" if operands else "no 8-bit kernel"
        if operands and not (operands[0] in self._activations and _is_float(operands[0])):
            operands, reason = None, "its input is no activation"
        if operands and operands[1] in self._activations:
            operands, reason = None, "its weight is computed of the input"
        if operands and not self._weights_alone and self._overwriting.hinders(operands[0], call):
            operands, reason = None, "its input is written to in place"
        if operands and self._weights_alone:
            reason = self._put_in_blocks(call, operands[1], operands[2])
            operands = None if reason else operands
        elif operands:
            activation, weight, axis = operands
            self._read_all(call, [activation])
            self.weights.append(WeightSite(call.name, weight.name, axis))
        self.layers.append(LayerPrecision(layer.name, layer.operator, bool(operands), reason, layer.macs))

    def _put_in_blocks(self, call: Node, weight: Node, axis: int | None) -> str:
        """Put the weight of a linear layer in blocks along what each output sums over; why not, else empty."""
        shape = weight.meta["sample_shapes"]
        if len(shape) != 2 or axis is None:
            return NOT_LINEAR
        inputs = shape[1 - axis]
        block = block_of(inputs)
        if block is None:
            return f"its {inputs} inputs are no multiple of a block of {BLOCKS[-1]}"
        self.weights.append(WeightSite(call.name, weight.name, axis, block))
        return ""

    def _read_all(self, reader: Node, tensors: Sequence[Node]) -> None:
        if all(self._can_be_read(tensor, reader) for tensor in tensors):
            for tensor in tensors:
                self._reads[tensor].add(reader)

    def _can_be_read(self, tensor: Node, reader: Node) -> bool:
        """Whether what a node reads can be on a grid: an activation that is as it was when it was computed."""
        is_activation = tensor in self._activations and _is_float(tensor)
        return is_activation and not self._overwriting.hinders(tensor, reader)

    def _follow(self, sparse: set[Node]) -> None:
        """Sums, averages and concatenations between layers on grids, from the network's end to its beginning.

        What a concatenation moves lies on its grid already: another one could only lose.
        """
        for node in reversed(list(calls(self.graph))):
            operator = operator_name(node.target)
            if operator in _JOINS and self._is_on_grid(node):
                parts = list(arguments(node)["tensors"])
                self._read_all(node, parts)
                for part in (*parts, *self._moved(node)):
                    if part in self._reads:
                        self._join(part, node)
            elif operator in _SUMS and self._is_on_grid(node):
                bound = arguments(node)
                if isinstance(bound["other"], Node) and bound.get("alpha", 1) == 1:
                    self._read_all(node, [bound["self"], bound["other"]])
            elif operator in _AVERAGES and self._is_on_grid(node) and self._comes_from_layer(node):
                self._read_all(node, [arguments(node)["self"]])
            elif node in sparse:
                self._put_out(node)

    def _put_out(self, layer: Node) -> None:
        """Put what a 2:4 layer yields on a grid: sparse INT8 kernels are chosen where input and output are.

        A layer that is kept in higher precision reads it as it is.
        """
        end = layer
        while len(end.users) == 1 and operator_name((user := next(iter(end.users))).target) in ACTIVATIONS:
            end = user
        readers = {user for user in end.users.keys() - self._kept if not self._overwriting.hinders(end, user)}
        if readers and end not in self._reads and not self._leads_out(end) and _is_float(end):
            self._reads[end].update(readers)

    def _is_on_grid(self, node: Node) -> bool:
        """Whether a value, or what activations and moves make of it, is read on a grid."""
        todo = [node]
        while todo:
            here = todo.pop()
            if here in self._reads:
                return True
            todo += [user for user in here.users if operator_name(user.target) in ACTIVATIONS | _MOVES]
        return False

    def _moved(self, node: Node) -> list[Node]:
        """A value and all that moves make of it."""
        moved = [node]
        for here in moved:
            moved += [user for user in here.users if operator_name(user.target) in _MOVES]
        return moved

    def _comes_from_layer(self, node: Node) -> bool:
        """Whether a value is that of a layer or a sum, but for activations and moves."""
        here = arguments(node)["self"]
        while operator_name(here.target) in ACTIVATIONS | _MOVES and here.all_input_nodes:
            here = here.all_input_nodes[0]
        return operator_name(here.target) in (*WEIGHTED, *_SUMS, *_JOINS)

    def _leads_out(self, node: Node) -> bool:
        """Whether a value is one that the network gives back, but for activations and moves."""
        return node in self._outputs or any(
            self._leads_out(user) for user in node.users if operator_name(user.target) in ACTIVATIONS | _MOVES
        )

    def _join(self, part: Node, whole: Node) -> None:
        self._family[self._root(part)] = self._root(whole)

    def _root(self, node: Node) -> Node:
        while (parent := self._family.get(node, node)) is not node:
            node = parent
        return node


def _operands(call: Node, graph: Graph) -> tuple[Node, Node, int | None] | None:
    """The activation and the weight of a layer, and the weight's axis of output channels; None for recurrent ones."""
    name = operator_name(call.target)
    if name in RECURRENT:
        return None
    if name in WEIGHTED:
        bound, kind = arguments(call), WEIGHTED[name]
        is_grouped = kind.is_transposed and int(bound.get("groups", 1)) > 1
        return bound["input"], bound["weight"], None if is_grouped else kind.filter_dim
    product = next(each for each in products(graph) if each.node is call)
    assert isinstance(product, WeightProduct)
    activation = next(tensor for tensor, _ in product.operands if tensor is not product.weight)
    return activation, product.weight, product.filter_dims[0] if len(product.filter_dims) == 1 else None


def _masked_calls(program: Program) -> set[Node]:
    """The calls whose weights are masked to 2:4."""
    masked = program.masked_to(TWO_FOUR)
    return {call for call, layer in layer_calls(program.graph) if layer.weight in masked}


def from_inputs(graph: Graph) -> set[Node]:
    """The values that depend on the network's inputs."""
    dependent: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not dependent.isdisjoint(node.all_input_nodes):
            dependent.add(node)
    return dependent


def _is_float(node: Node) -> bool:
    dtype = node.meta.get("dtype")
    return dtype is not None and dtype.is_floating_point and isinstance(node.meta.get("sample_shapes"), tuple)
