"""Count the work of a program: a walk over its graph that writes every count down as products of sizes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch.fx import Graph, Node

from prunec.passes.cost import call_macs, layer_name, recurrent_products
from prunec.passes.costs.workload import COUNTS, Operation, Work, Workload
from prunec.passes.coupling import Coupling
from prunec.passes.graphs import Shapes, arguments, calls, module_path, note, notes, operator_name, unquantized
from prunec.passes.labels import Atoms, Label, Ties, Value, opaque, parts
from prunec.passes.operators import RECURRENT, WEIGHTED
from prunec.passes.policy import Policy
from prunec.passes.products import Product, WeightProduct, products
from prunec.passes.program import Program
from prunec.passes.rules.lookup import find_rule
from prunec.passes.rules.pointwise import broadcast

#: Operators that engines fold into the layer before, or that move no data: batch norms, and views of a tensor.
_FREE = frozenset({
    "batch_norm", "_native_batch_norm_legit_no_training", "getitem", "view", "reshape", "_unsafe_view", "flatten",
    "unflatten", "squeeze", "unsqueeze", "expand", "permute", "transpose", "t", "numpy_T", "mT", "adjoint", "swapaxes",
    "movedim", "slice", "select", "split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "unbind",
    "narrow", "sym_size", "alias", "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine",
    "fake_quantize_float8_per_tensor", "fake_quantize_float8_per_channel", "fake_quantize_int4_blocks",
})  # fmt: skip
#: Name of the note of a node that tells the operation that it followed before that went.
_TAIL_OF = "prunec_tail_of"
#: Sizes that a product multiplies, as labelled axes; the others stand in its factor.
_Product = tuple[float, list[Atoms]]


def workload_of(program: Program, coupling: Coupling) -> Workload:
    """The workload of a program with all its prunable groups.

    The counts at the widths of a pruned program are those of that program at its own.
    """
    writer = _Writer(program, coupling)
    by_product = {product.node: product for product in products(program.graph)}
    for node in calls(program.graph):
        operator, product = operator_name(node.target), by_product.get(node)
        if operator in WEIGHTED:
            writer.weighted(node)
        elif isinstance(product, WeightProduct):
            writer.product(product)
        elif operator in RECURRENT:
            writer.recurrent(node)
        else:
            writer.follow(node, product)
    writer.parameters(program)
    return writer.workload()


def work_of(program: Program) -> Work:
    """The work of a program at the widths that it has, without an analysis of what could be pruned."""
    return _fixed_workload(program).at(np.zeros(0, dtype=np.int64))


def mark_tails(program: Program, graph: Graph) -> None:
    """Note in a graph without some layers of a program what stayed of their operations, for `Operation.tail_of`.

    Args:
        program: The program with the layers.
        graph: Its graph without them, whose nodes get the notes.
    """
    workload, by_name = _fixed_workload(program), {node.name: node for node in graph.nodes}
    first: dict[int, str] = {}
    for name, place in workload.owners.items():
        layer = first.setdefault(place, name)  # an operation begins with its layer
        if place and layer not in by_name and (node := by_name.get(name)) is not None and _TAIL_OF not in notes(node):
            note(node, _TAIL_OF, workload.operations[place].name)


def _fixed_workload(program: Program) -> Workload:
    """The workload of a program of which nothing can be pruned."""
    ties = Ties(values={node: opaque(node.meta.get("sample_shapes")) for node in program.graph.nodes})
    nothing = Coupling((), (), np.zeros(0, dtype=np.int64), {}, ties, Policy(), frozenset())
    return workload_of(program, nothing)


@dataclass(frozen=True)
class _Term:
    """A product of sizes that adds to one count of one operation."""

    count: str
    operation: int
    scale: float
    sizes: tuple[int, ...]


class _Writer:
    """The operations, sizes and products of sizes that were written so far."""

    def __init__(self, program: Program, coupling: Coupling) -> None:
        self._coupling = coupling
        self._samples = program.samples_of_shapes
        self._counts = np.array([group.count for group in coupling.groups], dtype=float)
        self._operations, self._owners = [Operation("")], dict[str, int]()
        self._calls: dict[str, int] = {}
        self._slopes: list[NDArray[np.float64]] = [np.zeros(len(self._counts))]
        self._constants = [1.0]
        self._positions: dict[int, int] = {}
        self._atoms: list[Atoms] = []  # kept alive, since sizes are known by their identity
        self._terms: list[_Term] = []

    def weighted(self, node: Node) -> None:
        """A convolution or linear layer."""
        bound, kind = arguments(node), WEIGHTED[operator_name(node.target)]
        weight: Node = bound["weight"]
        shape, labels = weight.meta["sample_shapes"], self._coupling.ties.of(weight)
        grouped = int(bound.get("groups", 1)) > 1
        self._begin(node, unquantized(weight), weight, bound["input"], shape[2:], is_grouped=grouped)
        axis = -1 - kind.spatial_dims
        self._add(
            "in_channels", *_sizes([bound["input"].meta["sample_shapes"][axis]], [self._of(bound["input"])[axis]])
        )
        self._add("out_channels", *_sizes([node.meta["sample_shapes"][axis]], [self._of(node)[axis]]))
        # An output element sums over the inputs of its own group; where the layer is transposed, over all the filters.
        summed = [labels[0]] if kind.is_transposed and not grouped else [] if kind.is_transposed else [labels[1]]
        atoms = [channels.atoms for label in (*self._of(node), *summed) for channels in parts(label)]
        self._add("macs", call_macs(node) / self._samples / math.prod(map(len, atoms)), atoms)

    def product(self, product: WeightProduct) -> None:
        """A product of an activation with a weight."""
        node, weight = product.node, product.weight
        activation, term = next(pair for pair in product.operands if pair[0] is not weight)
        self._begin(node, product.tensor, weight, activation, ())
        by_letter = {
            letter: (size, label)
            for tensor, letters in product.operands
            for letter, size, label in zip(letters, tensor.meta["sample_shapes"], self._of(tensor), strict=True)
        }
        summed = [by_letter[letter] for letter in product.term if letter not in product.output]
        filters = [by_letter[letter] for letter in product.term if letter in product.output and letter not in term]
        self._add("in_channels", *_sizes(*_columns(summed)))
        self._add("out_channels", *_sizes(*_columns(filters)))
        atoms = [
            channels.atoms for label in (*self._of(node), *(label for _, label in summed)) for channels in parts(label)
        ]
        self._add("macs", product.macs() / self._samples / math.prod(map(len, atoms)), atoms)

    def recurrent(self, node: Node) -> None:
        """A recurrent layer, which stays whole."""
        matrices = list(recurrent_products(node))
        sequence, first, _ = matrices[0]
        self._begin(node, first, first, sequence, ())
        self._add("in_channels", float(first.meta["sample_shapes"][1]), [])
        self._add("out_channels", float(first.meta["sample_shapes"][0]), [])
        macs = sum(steps * math.prod(matrix.meta["sample_shapes"]) for _, matrix, steps in matrices)
        self._add("macs", macs / self._samples, [])
        for _, matrix, _ in matrices[1:]:
            self._add("weights", float(math.prod(matrix.meta["sample_shapes"])), [])

    def follow(self, node: Node, product: Product | None) -> None:
        """What is no layer belongs to the last layer that it reads from, and costs what engines can't fold into it."""
        read = [source for source in node.all_input_nodes if source.meta.get("sample_shapes") is not None]
        owner = max((self._owners[source.name] for source in read if source.name in self._owners), default=0)
        self._owners[node.name] = owner
        operator = operator_name(node.target)
        activations = [source for source in read if source.op != "get_attr"]
        if operator in _FREE or not activations or node.meta.get("sample_shapes") is None:
            return
        if tail_of := notes(node).get(_TAIL_OF):
            self._operations[owner] = replace(self._operations[owner], tail_of=tail_of)
        if find_rule(node) is broadcast:
            others = [source for source in activations if self._owners.get(source.name, 0) != owner]
            for source in others:
                self._elements("joined", source, owner)
            joins = (*self._operations[owner].joins, *map(self._owner_name, others))
            self._operations[owner] = replace(self._operations[owner], joins=joins)
            return
        operation = self._operations[owner]
        self._operations[owner] = replace(operation, tail=(*operation.tail, operator))
        for moved in (*activations, node):
            self._elements("tail_moves", moved, owner)
        if product is not None:
            self._add_macs(owner, product.operands, product.macs())
        elif operator == "scaled_dot_product_attention":
            self._attention(owner, node)

    def parameters(self, program: Program) -> None:
        """Trained scalars, at the operation that is the first to use them; a tied tensor counts once."""
        first: dict[str, int] = {}
        for node in program.graph.find_nodes(op="get_attr"):
            name, owner = str(node.target), self._first_user(node)
            first[name] = min(owner, first.get(name, owner))
        for name, parameter in program.module.named_parameters():
            slots = [self._coupling.slots.get((name, dim)) for dim in range(parameter.dim())]
            fixed = (size for size, atoms in zip(parameter.shape, slots, strict=True) if atoms is None)
            self._add("parameters", math.prod(fixed), [each for each in slots if each is not None], first.get(name, 0))

    def _first_user(self, node: Node) -> int:
        """The first layer that uses a tensor or what is computed from it; 0 where none does."""
        owners, open_, seen = set[int](), list(node.users), set(node.users)
        while open_:
            user = open_.pop()
            owner = self._owners.get(user.name, 0)
            owners.add(owner)
            further = [] if owner else [each for each in user.users if each not in seen]
            seen.update(further)
            open_ += further
        return min(owners - {0}, default=0)

    def _attention(self, owner: int, node: Node) -> None:
        """Queries meet keys, and the weights of that meet values."""
        query, key, value = (arguments(node)[name] for name in ("query", "key", "value"))
        keys = key.meta["sample_shapes"][-2], self._of(key)[-2]
        for tensor in (query, value):
            shape, labels = query.meta["sample_shapes"], self._of(query)
            sizes = [*shape[:-1], keys[0], tensor.meta["sample_shapes"][-1]]
            self._add("tail_macs", *_sizes(sizes, [*labels[:-1], keys[1], self._of(tensor)[-1]], self._samples), owner)

    def _add_macs(self, owner: int, operands: Iterable[tuple[Node, str]], macs: int) -> None:
        labels: dict[str, Label] = {}
        for tensor, letters in operands:
            for letter, label in zip(letters, self._of(tensor), strict=True):
                labels[letter] = labels.get(letter) or label
        atoms = [channels.atoms for label in labels.values() for channels in parts(label)]
        self._add("tail_macs", macs / self._samples / math.prod(map(len, atoms)), atoms, owner)

    def _begin(
        self, node: Node, tensor: Node, weight: Node, reads: Node, kernel: tuple[int, ...], *, is_grouped: bool = False
    ) -> None:
        """A new operation, with the elements of its weight and of what it reads and writes."""
        is_own = tensor.op == "get_attr"
        parameter = str(tensor.target) if is_own else weight.name
        path = layer_name(parameter) if is_own else module_path(node) or parameter
        calls_before = self._calls[path] = self._calls.get(path, 0) + 1
        name = path if calls_before == 1 else f"{path}#{calls_before}"
        self._owners[node.name] = len(self._operations)
        operator = operator_name(node.target)
        source = self._owner_name(reads)
        self._operations.append(Operation(name, operator, parameter, tuple(kernel), is_grouped, source=source))
        self._elements("weights", weight, per=1)
        self._elements("reads", reads)
        self._elements("writes", node)

    def _owner_name(self, node: Node) -> str:
        """Name of the operation that a node belongs to."""
        return self._operations[self._owners.get(node.name, 0)].name

    def _of(self, node: Node) -> tuple[Label, ...]:
        """Labels of the one tensor that a node yields."""
        return self._coupling.ties.of(node)

    def _elements(self, count: str, node: Node, operation: int | None = None, per: int | None = None) -> None:
        """Add the elements of a node's tensors."""
        for sizes, labels in _tensors(node.meta["sample_shapes"], self._coupling.values[node]):
            self._add(count, *_sizes(sizes, labels, self._samples if per is None else per), operation)

    def _add(self, count: str, scale: float, atoms: list[Atoms], operation: int | None = None) -> None:
        """Add a product of sizes to a count of an operation, by default the last one."""
        place = len(self._operations) - 1 if operation is None else operation
        self._terms.append(_Term(count, place, scale, tuple(self._size(each) for each in atoms)))

    def _size(self, atoms: Atoms) -> int:
        """Position of the size of an axis with these atoms."""
        if id(atoms) not in self._positions:
            owners = self._coupling.group_of_root[self._coupling.roots[atoms]]
            per_group = np.bincount(owners + 1, minlength=len(self._counts) + 1)
            self._positions[id(atoms)] = len(self._slopes)
            self._atoms.append(atoms)
            self._slopes.append(per_group[1:] / self._counts)
            self._constants.append(float(per_group[0]))
        return self._positions[id(atoms)]

    def workload(self) -> Workload:
        """What was written; the size at position 0 is 1, for products of fewer sizes than the longest."""
        longest = max((len(term.sizes) for term in self._terms), default=0)
        factors = [[*term.sizes, *(0,) * (longest - len(term.sizes))] for term in self._terms]
        cells = [COUNTS.index(term.count) * len(self._operations) + term.operation for term in self._terms]
        return Workload(
            operations=tuple(self._operations),
            owners=self._owners,
            slopes=np.array(self._slopes).reshape(len(self._slopes), len(self._counts)),
            constants=np.array(self._constants),
            scales=np.array([term.scale for term in self._terms]),
            factors=np.array(factors, dtype=np.int64).reshape(len(factors), longest),
            cells=np.array(cells, dtype=np.int64),
        )


def _sizes(sizes: Iterable[int], labels: Iterable[Label], samples: int = 1) -> _Product:
    """The product of some axes' sizes: what no label says of them as a factor, over ``samples``, and the atoms."""
    atoms = [channels.atoms for label in labels for channels in parts(label)]
    return math.prod(sizes) / samples / math.prod(map(len, atoms)), atoms


def _columns(pairs: list[tuple[int, Label]]) -> tuple[list[int], list[Label]]:
    return [size for size, _ in pairs], [label for _, label in pairs]


def _tensors(shapes: Shapes, value: Value) -> Iterable[tuple[tuple[int, ...], tuple[Label, ...]]]:
    """Shape and labels of each tensor of a node's value."""
    if isinstance(shapes, list):
        values = value if isinstance(value, list) else [None] * len(shapes)
        for shape, item in zip(shapes, values, strict=True):
            yield from _tensors(shape, item)
    elif shapes is not None:
        yield shapes, value if isinstance(value, tuple) else (None,) * len(shapes)
