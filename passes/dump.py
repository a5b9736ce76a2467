"""A program as text that people read and tests compare: the same program gives the same bytes on every run."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from prunec.passes.coupling import Coupling, analyse
from prunec.passes.graphs import LARGEST_SIZE, Shapes, operator_name, symbol_primes
from prunec.passes.labels import Atoms, axes, parts
from prunec.passes.patterns.unit_masks import has_pattern
from prunec.passes.program import Program

_BATCH = next(symbol_primes())


def program_text(program: Program) -> str:
    """A dump of a program: a header, then one line for each node but the tensors, which stand where they are read.

    A line holds the node's name, its operator with the nodes that it reads, the shape of its output and its dtype
    unless that is float32, in brackets the coupled groups that its channels belong to, and the tensors that it reads
    with their shapes. ``(2:4)`` follows a masked parameter, ``(masked)`` one whose mask isn't 2:4 any more. In shapes
    ``batch`` varies, and so does a size behind ``~``, which is that of the example input.
    """
    writer = _Writer.of(program)
    rows = [writer.row(node) for node in program.graph.nodes if node.op != "get_attr"]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    inputs = [f"{node.name} {_output(node)}" for node in program.graph.find_nodes(op="placeholder")]
    lines = [
        f"inputs: {', '.join(inputs)}",
        f"MACs for one sample: {program.macs()}, of attention: {program.attention_macs()}",
        f"parameters: {program.parameter_count()}",
        "",
        *("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows),
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, eq=False)
class _Writer:
    """Writes the lines of one program; ``owners`` are the positions in ``names`` of the group of each root."""

    program: Program
    coupling: Coupling
    names: list[str]
    owners: Atoms

    @classmethod
    def of(cls, program: Program) -> "_Writer":
        coupling = analyse(program)
        names = [*(group.name for group in coupling.groups), *(f"{group.name}, frozen" for group in coupling.frozen)]
        return cls(program, coupling, names, coupling.owners((*coupling.groups, *coupling.frozen)))

    def row(self, node: Node) -> tuple[str, str, str, str, str]:
        sources = [self._tensor(source) for source in node.all_input_nodes if source.op == "get_attr"]
        return (node.name, _call(node), _output(node), self._groups(node), ", ".join(sources))

    def _tensor(self, node: Node) -> str:
        name = str(node.target)
        mask = self.program.masks.get(name)
        pattern = self.program.pattern_of(name)
        sparsity = "" if mask is None else f" ({pattern.text})" if has_pattern(pattern, mask) else " (masked)"
        return f"{name} {_output(node)}{sparsity}"

    def _groups(self, node: Node) -> str:
        """The groups of the output's channels, axis by axis, each once."""
        positions: dict[int, None] = {}
        for label in axes(self.coupling.values.get(node)):
            for channels in parts(label):
                owners = self.owners[self.coupling.roots[channels.atoms]]
                positions.update(dict.fromkeys(owners[owners >= 0].tolist()))
        return "".join(f"[{self.names[position]}]" for position in positions)


def _call(node: Node) -> str:
    if node.op == "placeholder":
        return "input"
    reads = [source.name for source in node.all_input_nodes if source.op != "get_attr"]
    operator = "output" if node.op == "output" else operator_name(node.target)
    index = [str(argument) for argument in node.args if isinstance(argument, int)] if operator == "getitem" else []
    return f"{operator}({', '.join([*reads, *index])})"


def _output(node: Node) -> str:
    """Shape and dtype of what a node yields; empty for a number and for what the network gives out."""
    dtype = node.meta.get("dtype")
    shape = _shape(node.meta.get("shapes"), node.meta.get("sample_shapes"))
    return shape if dtype in (None, torch.float32) else f"{shape} {str(dtype).removeprefix('torch.')}"


def _shape(shapes: Shapes, example: Shapes) -> str:
    if shapes is None or example is None:
        return ""
    pairs: Any = zip(shapes, example, strict=True)
    if isinstance(shapes, list):
        return f"[{', '.join(_shape(*pair) for pair in pairs)}]"
    return f"({', '.join(_size(*pair) for pair in pairs)})"


def _size(size: int, example: int) -> str:
    if size < LARGEST_SIZE:
        return str(size)
    if size % _BATCH:
        return f"~{example}"
    return "batch" if size == _BATCH else f"{size // _BATCH}*batch"
