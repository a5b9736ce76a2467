"""Two programs of one network, node by node: the first operator at which they differ."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from prunec.passes.feeding import flat_inputs
from prunec.passes.graphs import module_path, operator_name
from prunec.passes.operators import EVEN_SPLITS
from prunec.passes.program import Program
from prunec.passes.tensors import doubled

#: Difference of sums over a tensor, against the sum of its magnitudes, at which it counts as the same: in float64,
#: rounding stays far below.
_TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class NodeDifference:
    """An operator at which two programs differ, on the same inputs.

    Attributes:
        position: Number of operators before it that don't.
        node: The operator in the program that is compared.
        expected: The operator in the program that it is compared with.
        words: The difference, as a clause.
    """

    position: int
    node: Node
    expected: Node
    words: str


#: Module path, operator, and the number of calls of it there before: what nodes of two graphs are told to be equal by.
_Key = tuple[str, str, int]


def first_difference(program: Program, expected: Program) -> NodeDifference | None:
    """The first operator whose output differs from that of its twin, on the example input in float64.

    Twins are the operators that a module calls in the same order. None where all that have one are equal.
    """
    there = _Recording(expected).values
    here = _Recording(program).values
    for position, (key, (node, value)) in enumerate(here.items()):
        if key in there:
            twin, other = there[key]
            if words := _difference(node, value, twin, other):
                return NodeDifference(position, node, twin, words)
    return None


def _difference(node: Node, value: list[Any], twin: Node, expected: list[Any]) -> str:
    shapes, expected_shapes = (", ".join(str(shape) for shape, _ in side) for side in (value, expected))
    if shapes != expected_shapes:
        return f"gives the shape {shapes} in the module and {expected_shapes} in the pruned program"
    if not any(_differ(a, b) for (_, a), (_, b) in zip(value, expected, strict=True)):
        return ""
    numbers, wanted_numbers = _numbers(node), _numbers(twin)
    if len(numbers) == len(wanted_numbers) and numbers != wanted_numbers:
        got, wanted = next(pair for pair in zip(numbers, wanted_numbers, strict=True) if pair[0] != pair[1])
        return f"takes {got:g} in the module and {wanted:g} in the pruned program"
    return "gives other values in the module than in the pruned program"


def _differ(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() > _TOLERANCE * torch.maximum(a, b)[1]).any())


def _numbers(node: Node) -> list[float]:
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, int | float) and not isinstance(leaf, bool)]


class _Recording(Interpreter):
    """Runs a program in float64 and keeps three sums of every operator's outputs."""

    def __init__(self, program: Program) -> None:
        program = program.double().eval()
        super().__init__(program.module)
        self.values: dict[_Key, tuple[Node, list[Any]]] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        args, kwargs = doubled((program.example_args, program.example_kwargs))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            self.run(*flat_inputs(program.graph, args, kwargs), enable_io_processing=False)

    def run_node(self, n: Node) -> Any:
        """Run one node and keep its sums, under its key."""
        value = super().run_node(n)
        tensors = list(_tensors(value))  # of sizes there are none where nothing varies
        if n.op == "call_function" and tensors and operator_name(n.target) != "getitem":
            name = operator_name(n.target)
            place = module_path(n), "split" if name in (*EVEN_SPLITS, "split_with_sizes") else name
            self.values[*place, self.calls[place]] = n, list(map(_summary, tensors))
            self.calls[place] += 1
        return value


def _tensors(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor))


def _summary(tensor: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """Shape, and sums of the values, of their magnitudes, and of their products with changing weights."""
    flat = torch.nan_to_num(tensor.detach().double().reshape(-1))
    weights = torch.cos(torch.arange(flat.numel(), dtype=torch.float64, device=flat.device))
    return tuple(tensor.shape), torch.stack([flat.sum(), flat.abs().sum(), flat @ weights]).cpu()
