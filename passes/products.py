"""Products of two tensors, as sums over letters: ``btn,nm->btm``."""

import math
import string
from collections.abc import Iterator
from dataclasses import dataclass

from torch.fx import Graph, Node

from prunec.passes.graphs import arguments, calls, operator_name, unquantized

#: Operators that multiply two matrices, or two stacks of them, with the names of both arguments.
_MATRICES = {
    "matmul": ("self", "other"), "mm": ("self", "mat2"), "bmm": ("self", "mat2"), "mv": ("self", "vec"),
    "addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2"),
}  # fmt: skip
#: Every operator that `letters` reads.
PRODUCTS = (*_MATRICES, "einsum")
#: Operators that give a tensor's values in another order of axes.
_MOVES = ("t", "transpose", "permute", "numpy_T", "mT", "swapaxes", "movedim")


#: Two tensors, each with a letter for every axis.
Operands = tuple[tuple[Node, str], tuple[Node, str]]
#: Operands, and the letters of the result's axes.
Letters = tuple[Operands, str]


@dataclass(frozen=True, eq=False)
class Product:
    """A product of two tensors.

    Attributes:
        node: The call.
        operands: Both tensors, each with a letter for every axis.
        output: Letters of the result's axes; the others are summed over.
    """

    node: Node
    operands: Operands
    output: str

    def macs(self, shapes: str = "sample_shapes") -> int:
        """Multiply-accumulates: one for every combination of indices, of the sizes in this entry of the metadata."""
        sizes: dict[str, int] = {}
        for tensor, term in self.operands:
            for letter, size in zip(term, tensor.meta[shapes], strict=True):
                sizes[letter] = max(size, sizes.get(letter, 1))
        return math.prod(sizes.values())


@dataclass(frozen=True, eq=False)
class WeightProduct(Product):
    """A product of an activation with a tensor that depends on no input, but for its sizes.

    Attributes:
        weight: The tensor that the call multiplies with.
        term: Letters of its axes.
        name: Name of the parameter that it is, or a transposed form of; the name of its node where it is computed.
        tensor: The node that reads the parameter; ``weight`` where it is computed.
    """

    weight: Node
    term: str
    name: str
    tensor: Node

    @property
    def filter_dims(self) -> tuple[int, ...]:
        """Dimensions of the weight that the result has and the activation lacks."""
        other = next(term for tensor, term in self.operands if tensor is not self.weight)
        return tuple(dim for dim, letter in enumerate(self.term) if letter in self.output and letter not in other)


def products(graph: Graph) -> Iterator[Product]:
    """Every product of two tensors, those with weights as `WeightProduct`, in the order of execution."""
    from_inputs: set[Node] = set()
    sizes = set(calls(graph, "sym_size"))  # of an input, such as the batch that a weight is expanded to, not its values
    for node in graph.nodes:
        if node.op == "placeholder" or not (node in sizes or from_inputs.isdisjoint(node.all_input_nodes)):
            from_inputs.add(node)
    for node in calls(graph, *PRODUCTS):
        if (read := letters(node)) is not None:
            operands, output = read
            weights = [(tensor, term) for tensor, term in operands if tensor not in from_inputs]
            if len(weights) == 1:
                weight, term = weights[0]
                tensor = _moved(unquantized(weight))
                is_own = tensor.op == "get_attr"
                name = str(tensor.target) if is_own else weight.name
                yield WeightProduct(node, operands, output, weight, term, name, tensor if is_own else weight)
            else:
                yield Product(node, operands, output)


def letters(node: Node) -> Letters | None:
    """Both operands of a product with a letter for each axis, and the result's; None for other numbers of tensors."""
    bound = arguments(node)
    if operator_name(node.target) == "einsum":
        return _letters_of_einsum(bound["equation"], list(bound["tensors"]), len(node.meta["sample_shapes"]))
    left, right = (bound[name] for name in _MATRICES[operator_name(node.target)])
    rank_left, rank_right = len(left.meta["sample_shapes"]), len(right.meta["sample_shapes"])
    batch = string.ascii_uppercase[: max(rank_left, rank_right, 2) - 2]
    first = batch[len(batch) - max(rank_left - 2, 0) :] + ("yk" if rank_left > 1 else "k")
    second = batch[len(batch) - max(rank_right - 2, 0) :] + ("kz" if rank_right > 1 else "k")
    output = batch + ("y" if rank_left > 1 else "") + ("z" if rank_right > 1 else "")
    return ((left, first), (right, second)), output


def _letters_of_einsum(equation: str, tensors: list[Node], rank: int) -> Letters | None:
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != 2:
        return None
    free = [letter for letter in string.ascii_letters if letter not in equation]
    ranks = [len(tensor.meta["sample_shapes"]) for tensor in tensors]
    broad = max(rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True))
    names = "".join(free[: max(broad, 0)])

    def spelt(term: str, rank: int) -> str:
        known = len(term.replace("...", ""))
        return term.replace("...", names[len(names) - (rank - known) :] if rank > known else "")

    if not arrow:
        output = names + "".join(sorted(x for x in set(inputs) if x.isalpha() and inputs.count(x) == 1))
    first, second = (spelt(term, rank) for term, rank in zip(terms, ranks, strict=True))
    return ((tensors[0], first), (tensors[1], second)), (spelt(output, rank) if arrow else output)


def _moved(node: Node) -> Node:
    """The tensor of which this one is another order of axes, or what a quantizer made of that."""
    while node.op == "call_function" and operator_name(node.target) in _MOVES:
        node = unquantized(arguments(node)["self"])
    return node
