"""Remove residual branches from a program."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch.fx import Graph

from prunec.passes.branches import Branch, branches_of_graph
from prunec.passes.cost import layer_calls
from prunec.passes.costs.counting import mark_tails
from prunec.passes.errors import InputError, did_you_mean
from prunec.passes.graphs import copied_graph, set_argument
from prunec.passes.plan import RemovedBranch, misfit
from prunec.passes.program import Program


def remove_branches(program: Program, names: Sequence[str]) -> Program:
    """The program without residual branches: what adds them to their skips becomes the skips.

    It equals the program in which the branches' values are zero. Tensors that nothing reads any more go with them.

    Args:
        program: The program, which stays as it is.
        names: Names of branches, each as `find_branches` names it in the program without those before it.

    Raises:
        InputError: There is no such branch, or it went with one of those before.
    """
    return removal(program, names)[0]


def removal(program: Program, names: Iterable[str]) -> tuple[Program, tuple[RemovedBranch, ...]]:
    """What `remove_branches` gives, and what a plan tells of each branch."""
    graph, names = copied_graph(program.graph), tuple(names)
    if not names:
        return program, ()
    removed = tuple(branch.removed for branch in _cut(graph, program, names))
    gone = {name for each in removed for name in each.tensors}
    for node in graph.find_nodes(op="get_attr"):
        if str(node.target) in gone:
            graph.erase_node(node)
    mark_tails(program, graph)
    tensors = {name: tensor for name, tensor in program.tensors().items() if name not in gone}
    result = program.with_tensors(tensors, graph)
    masks = {name: mask for name, mask in program.masks.items() if name not in gone}
    constants = tuple(name for name in program.constants if name not in gone)
    return replace(result, masks=masks, constants=constants), removed


def without_branches(program: Program, removed: Sequence[RemovedBranch]) -> Program:
    """The program without the branches that a plan removes.

    Raises:
        InputError: The plan was made for another network: it has no such branches, or of other tensors.
    """
    result, cut = removal(program, [each.name for each in removed])
    for ours, theirs in zip(cut, removed, strict=True):
        if set(ours.tensors) != set(theirs.tensors):
            raise misfit(f"The plan doesn't fit this network: its branch {theirs.name} has other tensors here.")
    return result


def branch_of_layers(program: Program, names: Sequence[str]) -> list[str | None]:
    """The branch with which each of a program's layers goes, by `Program.layers`; None for those that stay."""
    branches = list(_cut(copied_graph(program.graph), program, names))
    by_node = {node: branch.name for branch in branches for node in branch.nodes}
    return [by_node.get(node.name) for node, _ in layer_calls(program.graph)]


def silenced(program: Program, names: Sequence[str]) -> Program:
    """The whole program with zeros in place of the values of its branches, which are computed all the same."""
    places = [(branch.joined, branch.operand) for branch in _cut(copied_graph(program.graph), program, names)]
    graph = copied_graph(program.graph)
    by_name = {node.name: node for node in graph.nodes}
    for joined, operand in places:
        node = by_name[joined]
        value = node.all_input_nodes[operand]
        with graph.inserting_before(node):
            zeros = graph.call_function(torch.ops.aten.zeros_like.default, (value,))
        zeros.meta = dict(value.meta)
        set_argument(node, ("self", "other")[operand], zeros)
    return program.with_tensors(program.tensors(), graph)


def _cut(graph: Graph, program: Program, names: Sequence[str]) -> Iterator[Branch]:
    """Cut branches out of a graph, in place, one after the other."""
    tensors = program.tensors()
    for name in names:
        branches = list(branches_of_graph(graph, tensors))
        branch = next((each for each in branches if each.name == name), None)
        if branch is None:
            raise InputError(
                f"The network has no residual branch {name} that can be removed.",
                hint=did_you_mean(name, [each.name for each in branches]) if branches else "It has none at all.",
            )
        _replace(graph, branch)
        yield branch


def _replace(graph: Graph, branch: Branch) -> None:
    """Put the skip in the place of a sum, and erase what only the branch needed."""
    joined = next(node for node in graph.nodes if node.name == branch.joined)
    joined.replace_all_uses_with(joined.all_input_nodes[1 - branch.operand])
    graph.erase_node(joined)
    for node in reversed(list(graph.nodes)):
        if node.name in branch.nodes:
            graph.erase_node(node)
