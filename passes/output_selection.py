"""The outputs that are deployed: a program without the others, and without what only they need."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from torch.fx import Node

from prunec.passes.dimensions import specification
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.frontend import capture
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
    form = OutputForm.of(program.graph)
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
    selected = program.with_tensors(program.tensors(), graph)
    left, parameters = selected.tensors(), program.parameters()
    dropped = tuple(name for name in parameters if name not in left)
    masks = {name: mask for name, mask in selected.masks.items() if name in left}
    constants = tuple(name for name in program.constants if name in left)
    return replace(selected, masks=masks, dropped=(*program.dropped, *dropped), constants=constants)


def captured_alike(module: nn.Module, program: Program) -> Program:
    """A program of another network with the inputs and outputs of a program; for errors see `capture`.

    Args:
        module: The network that the program was captured from, perhaps with other widths.
        program: The program, whose outputs may be some of the network's.
    """
    args, kwargs, dims = program.example_args, program.example_kwargs, program.dynamic_shapes
    has_others = any(each.varying for each in program.inputs)
    shapes = specification(module, args, kwargs, dims) if dims and has_others else None
    captured = capture(module, args, kwargs, shapes)
    captured.describe_inputs(program.inputs)
    deployed = OutputForm.of(program.graph).computed_paths
    is_whole = deployed == OutputForm.of(captured.graph).computed_paths
    return captured if is_whole else select_outputs(captured, deployed)


def _is_below(path: str, chosen: str) -> bool:
    return path == chosen or path.startswith(f"{chosen}.")
