"""Training and inference form of an eval-mode graph, and what such a graph has lost of the training form."""

import inspect
from collections import Counter
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule, Node

from prunec.passes.graphs import arguments, calls, operator_name, set_argument

#: Modules whose training form is nothing but a switched argument of their operator.
_SWITCHABLE = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
_SWITCH = {"batch_norm": "training", "dropout": "train", "alpha_dropout": "train", "feature_dropout": "train"}


def mark_switches(graph: Graph) -> None:
    """Mark the nodes that differ between training and inference, in a freshly captured eval graph.

    Batch norms without running statistics use batch statistics in both forms, and so does one over a parameter
    (weight standardisation): they are not marked and never change.
    """
    for node in calls(graph, *_SWITCH):
        bound = arguments(node)
        operator = operator_name(node.target)
        if operator == "batch_norm":
            node.meta["switch"] = bound["running_mean"] is not None and not bound["training"]
        else:
            node.meta["switch"] = True


def switch(graph: Graph, training: bool) -> None:
    """Set the training argument of every marked node."""
    for node in calls(graph, *_SWITCH):
        if node.meta.get("switch"):
            set_argument(node, _SWITCH[operator_name(node.target)], training)


def may_branch_on_training(module: nn.Module) -> bool:
    """Whether some submodule's code mentions ``training`` beyond batch norm and dropout (or can't be read)."""

    def suspicious(cls: type[nn.Module]) -> bool:
        if issubclass(cls, _SWITCHABLE):
            return False
        try:
            return "training" in inspect.getsource(cls.forward)
        except (OSError, TypeError):
            return not cls.__module__.startswith("torch.")

    return any(suspicious(cls) for cls in {type(m) for m in module.modules()})


def lost_in_capture(module: nn.Module, graph: Graph, export: Any) -> tuple[str, ...]:
    """What the training form does that the captured eval graph doesn't, by module path.

    Args:
        module: the network, in eval mode; put back into eval mode.
        graph: its eval graph, not yet normalised.
        export: function that exports the module in its current mode; a module that can't be exported in
            training mode is reported as a whole.
    """
    if not may_branch_on_training(module):
        return ()
    modes = {m: m.training for m in module.modules()}
    module.train()
    try:
        training: GraphModule = export().module(check_guards=False)
    except Exception as error:  # noqa: BLE001 - any failure of a foreign export is reported, not raised
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return (f"unknown: the training form can't be exported ({reason})",)
    finally:
        for m, mode in modes.items():
            m.training = mode
    missing = _operators(training.graph) - _operators(graph)
    return tuple(sorted({f"{path or 'forward'}: {operator}" for path, operator in missing}))


def _operators(graph: Graph) -> Counter[tuple[str, str]]:
    def path(node: Node) -> str:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return str(stack[-1][0]) if stack else ""

    # The counter of batches is bookkeeping of batch norm's training form, not behaviour.
    return Counter(
        (path(node), operator_name(node.target))
        for node in graph.nodes
        if node.op == "call_function" and not _counts_batches(node)
    )


def _counts_batches(node: Node) -> bool:
    return operator_name(node.target) in ("add_", "add", "copy_") and any(
        "num_batches_tracked" in str(argument.target) for argument in node.all_input_nodes if argument.op == "get_attr"
    )
