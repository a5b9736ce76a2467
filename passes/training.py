"""The training and inference forms of an eval-mode graph, and what such a graph has lost of the training form."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, CodeType

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from prunec.passes.errors import first_line
from prunec.passes.graphs import arguments, calls, operator_name, set_argument
from prunec.passes.operators import DROPOUTS, REGIONS

#: Modules whose training form differs by one argument of their operator only.
_SWITCHABLE = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
#: The argument that tells training from inference, by operator.
_SWITCH = {"batch_norm": "training", **dict.fromkeys(DROPOUTS, "train"), **{f"{name}_": "train" for name in DROPOUTS}}


def mark_switches(graph: Graph) -> None:
    """Mark the nodes that differ between training and inference, in a freshly captured eval graph.

    Nodes that train in eval mode do so in both forms and are not marked: batch norms without running statistics, batch
    norms over a parameter (weight standardisation), dropout that is meant to sample.
    """
    for node in calls(graph, *_SWITCH):
        node.meta["switch"] = not arguments(node)[_SWITCH[operator_name(node.target)]]


def switch(graph: Graph, training: bool) -> None:
    """Set the training argument of every marked node."""
    for node in calls(graph, *_SWITCH):
        if node.meta.get("switch"):
            set_argument(node, _SWITCH[operator_name(node.target)], training)


@contextmanager
def kept_modes(module: nn.Module) -> Iterator[None]:
    """Give each submodule its training or eval mode back after what runs within."""
    modes = {m: m.training for m in module.modules()}
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode


def may_branch_on_training(module: nn.Module) -> bool:
    """Whether code of some submodule's class reads ``training``, beyond batch norm and dropout."""
    classes = {type(part) for part in module.modules() if not isinstance(part, _SWITCHABLE)}
    bases = {base for cls in classes for base in cls.__mro__ if issubclass(base, nn.Module)}
    return any(map(_mentions_training, bases - {nn.Module}))


def _mentions_training(cls: type) -> bool:
    """Whether a class's own code names ``training``; True where there is code that isn't Python's."""
    parts = [getattr(value, "__func__", getattr(value, "fget", value)) for value in vars(cls).values()]
    if any(isinstance(part, BuiltinFunctionType) for part in parts):
        return True
    codes = [inspect.unwrap(part).__code__ for part in parts if inspect.isfunction(part)]
    while codes:
        code = codes.pop()
        if "training" in (*code.co_names, *code.co_consts):
            return True
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return False


def lost_in_capture(module: nn.Module, graph: Graph, export: Callable[[], ExportedProgram]) -> tuple[str, ...]:
    """Operators of the training form that the captured eval graph lacks, by module path.

    Args:
        module: The network.
        graph: The module's eval graph, not yet normalised.
        export: Exports the module in training mode. One that can't be exported so is reported as a whole.
    """
    averages = [
        f"{path}: cumulative average of batch statistics (momentum=None)"
        for path, norm in module.named_modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.momentum is None
    ]
    if not may_branch_on_training(module):
        return tuple(averages)
    try:
        training = export().graph
    except Exception as error:  # noqa: BLE001 - any failure of a foreign export is reported, not raised
        return (*averages, f"unknown: the training form can't be exported ({first_line(error)})")
    missing = _operators(training) - _operators(graph)
    return tuple(sorted({f"{path or 'forward'}: {operator}" for path, operator, _ in missing} | set(averages)))


def _operators(graph: Graph) -> Counter[tuple[str, str, str]]:
    """Number of calls of each operator by each module, told apart by form where a flag or a rate distinguishes them."""

    def path(node: Node) -> str:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return str(stack[-1][0]) if stack else ""

    def form(node: Node) -> str:
        if not isinstance(node.target, torch._ops.OpOverload) or operator_name(node.target) in _SWITCH:
            return ""
        bound = arguments(node)
        if bound.get("dropout") == 0.0:  # a recurrent layer without dropout trains as it infers
            return ""
        return str(sorted((k, float(v)) for k, v in bound.items() if isinstance(v, bool) or k == "dropout_p"))

    kept = (node for node in _calls_within(graph) if not _does_nothing(node))
    return Counter((path(node), operator_name(node.target), form(node)) for node in kept)


def _calls_within(graph: Graph) -> Iterator[Node]:
    """The calls of a graph and, in place of regions under another mode, those within."""
    for node in calls(graph):
        position = REGIONS.get(operator_name(node.target))
        if position is None:
            yield node
        else:
            body = graph.owning_module.get_submodule(str(node.args[position].target))  # type: ignore[union-attr]
            yield from _calls_within(body.graph)  # type: ignore[arg-type]


def _does_nothing(node: Node) -> bool:
    """Whether a call changes no output: a check, one of several results, dropout at a rate of 0, a count of batches."""
    name = operator_name(node.target)
    is_off = name.removesuffix("_") in DROPOUTS and arguments(node)["p"] == 0
    return is_off or name == "getitem" or name.startswith("_assert") or _counts_batches(node)


def _counts_batches(node: Node) -> bool:
    return operator_name(node.target) in ("add_", "add", "copy_") and any(
        "num_batches_tracked" in str(argument.target)
        for argument in node.all_input_nodes
        if argument.op in ("get_attr", "placeholder")
    )
