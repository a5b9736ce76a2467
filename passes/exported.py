"""Results of ``torch.export`` in the form of a program: one graph, its tensors, plain metadata."""

from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from prunec.passes.dimensions import batch_symbol
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.normalise import normalise
from prunec.passes.tensors import copied, named_tensors
from prunec.passes.torch_export import unlifted_graph
from prunec.passes.training import mark_switches


def read_exported(exported: ExportedProgram) -> tuple[GraphModule, tuple[str, ...], tuple[str, ...]]:
    """Normalise the graph of an exported network; the exported program itself may be used up by it.

    Returns:
        The normalised graph with the tensors that it reads (copies of those that the code holds), the names of
        parameters that no operator reads, and those of tensors that are neither parameters nor buffers.

    Raises:
        UnsupportedModelError: A tensor has a name that torch.fx keeps for itself, or the graph has graphs within it.
    """
    _refuse_reserved_names(exported)
    module = unlifted_graph(exported)
    normalise(module, batch_symbol(exported))
    mark_switches(module.graph)
    _use_first_names(module)
    dropped = _drop_unused_parameters(module)
    named: dict[str, Any] = named_tensors(module)
    names = [str(node.target) for node in module.graph.find_nodes(op="get_attr")]
    # In the order of the module, so that equal networks give equal programs; constants of its code come last.
    constants = tuple(sorted({name for name in names if name not in named}))
    tensors = {name: tensor for name, tensor in named.items() if name in set(names)}
    tensors |= copied({name: attribute(module, name) for name in constants})
    return GraphModule(tensors, module.graph), dropped, constants


def _refuse_reserved_names(exported: ExportedProgram) -> None:
    for name in (*exported.state_dict, *exported.constants):
        first = name.partition(".")[0]
        if hasattr(GraphModule, first):
            raise UnsupportedModelError(
                f"The network's {first!r} (of {name}) has a name that torch.fx keeps for itself.",
                hint="Rename that attribute of the network, and the keys of its checkpoint with it.",
            )


def _use_first_names(module: GraphModule) -> None:
    """Read a tensor with several names under the first of them, as the network's own code names it."""
    first: dict[int, Node] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        original = first.setdefault(id(attribute(module, str(node.target))), node)
        if original is not node:
            node.replace_all_uses_with(original)


def _drop_unused_parameters(module: GraphModule) -> tuple[str, ...]:
    """Remove parameters that no operator reads, such as auxiliary heads'; one tied to a used one stays."""
    graph = module.graph
    nodes = {node: attribute(module, str(node.target)) for node in graph.find_nodes(op="get_attr")}
    used = {id(value) for node, value in nodes.items() if node.users}
    unused = [n for n, value in nodes.items() if isinstance(value, nn.Parameter) and id(value) not in used]
    for node in unused:
        graph.erase_node(node)
    return tuple(str(node.target) for node in unused)


def attribute(module: nn.Module, path: str) -> Any:
    """What a module holds under a dotted name."""
    parent, _, name = path.rpartition(".")
    return getattr(module.get_submodule(parent), name)
