"""The outputs that are deployed: a program without the others, and without what only they need."""

from collections.abc import Sequence
from dataclasses import replace

from torch.fx import Node

from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.graphs import copied_graph
from prunec.passes.normalise import remove_dead_nodes
from prunec.passes.outputs import OutputForm, graph_outputs, set_outputs
from prunec.passes.program import Program


def select_outputs(program: Program, paths: Sequence[str]) -> Program:
    """A program that computes some of its outputs only; the structure stays, with None for the others.

    What nothing else needs is left out, so that it neither is exported nor keeps channels from being pruned.

    Args:
        program: Any program; not changed.
        paths: Keys, fields and positions with dots between them, as in "logits" or "hidden_states.3"; the path of a
            container stands for all in it.

    Raises:
        UsageError: A path leads to no tensor.
    """
    form, outputs = OutputForm.of(program.graph), graph_outputs(program.graph)
    for path in paths:
        if not any(_is_below(known, path) for known in form.computed_paths):
            hint = did_you_mean(path, form.computed_paths) if any(form.computed_paths) else "It is one tensor."
            raise UsageError(f"[model] outputs: the network has no output {path!r}.", hint=hint)
    kept = [any(_is_below(path, chosen) for chosen in paths) for path in form.paths]
    graph = copied_graph(program.graph)
    copies = graph_outputs(graph)
    chosen = [copy if keep or not isinstance(copy, Node) else None for copy, keep in zip(copies, kept, strict=True)]
    set_outputs(graph, chosen, form.spec)
    were_read = {node.name for node in program.graph.find_nodes(op="get_attr") if node.users}
    remove_dead_nodes(graph)
    for node in [node for node in graph.find_nodes(op="get_attr") if not node.users and node.name in were_read]:
        graph.erase_node(node)
    assert len(outputs) == len(copies)
    selected = program.with_tensors(program.tensors(), graph)
    left, parameters = selected.tensors(), program.parameters()
    dropped = tuple(name for name in parameters if name not in left)
    masks = {name: mask for name, mask in selected.masks.items() if name in left}
    constants = tuple(name for name in program.constants if name in left)
    return replace(selected, masks=masks, dropped=(*program.dropped, *dropped), constants=constants)


def _is_below(path: str, chosen: str) -> bool:
    return path == chosen or path.startswith(f"{chosen}.")
