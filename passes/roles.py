"""Roles of layers: those that read the network's input, and those that make its output."""

from collections.abc import Callable, Iterable, Sequence

from torch.fx import Graph, Node

from prunec.passes.cost import layer_name, weighted_calls

#: Role -> in words; options that take globs over layers take these names too.
ROLES = {"stem": "layers that the input reaches first", "classifier": "layers that nothing but the output follows"}


def expand_roles(graph: Graph, globs: Sequence[str]) -> tuple[str, ...]:
    """Globs with every role among them replaced by the paths of its layers, beside the role's own name.

    Args:
        graph: of a program.
        globs: module paths, globs over them, or `ROLES`.
    """
    if not ROLES.keys() & set(globs):
        return tuple(globs)
    layers = {node: layer_name(weight) for node, weight in weighted_calls(graph)}
    found = {
        "stem": _reached(graph.find_nodes(op="placeholder"), lambda node: node.users, layers),
        "classifier": _reached([graph.output_node()], lambda node: node.all_input_nodes, layers),
    }
    return tuple(path for glob in globs for path in (found.get(glob, ()) or (glob,)))


def _reached(start: Iterable[Node], step: Callable[[Node], Iterable[Node]], layers: dict[Node, str]) -> tuple[str, ...]:
    """Layers that can be reached without passing another layer, in the order found."""
    seen: set[Node] = set()
    todo, found = list(start), dict[str, None]()
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in layers:
            found[layers[node]] = None
        else:
            todo.extend(step(node))
    return tuple(found)
