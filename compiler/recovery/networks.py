"""The networks that run in a step of a training, and the rewrites of their graphs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn.modules._functions import SyncBatchNorm
from torch.utils import _pytree as pytree

from prunec.compiler.recovery.attached_hooks import AttachedHooks
from prunec.compiler.recovery.deterministic import pool_in_order
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover_options import Recover
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.feeding import BatchInputs, bound, values_of_data
from prunec.passes.graphs import arguments, calls, module_path
from prunec.passes.program import Program
from prunec.passes.tensors import Inputs


@dataclass(frozen=True)
class Observed:
    """A network whose graph also gives inner values of these names (`expose`); its outputs alone where none are.

    ``bind`` makes arguments of the module of what data give as the inputs of a batch.
    """

    module: nn.Module = field(repr=False)
    bind: Callable[[BatchInputs], Inputs] = field(repr=False)
    names: tuple[str, ...] = ()

    def __call__(self, inputs: BatchInputs) -> tuple[Any, dict[str, Tensor]]:
        """The outputs, and the inner values by name."""
        args, kwargs = self.bind(inputs)
        with values_of_data(inputs):
            given = self.module(*args, **kwargs)
        if not self.names:
            return given, {}
        outputs, values = given
        return outputs, dict(zip(self.names, values, strict=True))


@dataclass(frozen=True)
class Networks:
    """The networks of a step.

    Attributes:
        program: The network that is trained, in its own form, with its masks.
        form: The network's training form over the same tensors, as the hooks have rewritten it.
        trained: The same form, perhaps compiled, perhaps one of several that work together.
        teacher: The dense network, where something learns from it.
        teacher_macs: Multiply-accumulates of the teacher for one sample; 0 where there is none.
    """

    program: Program
    form: Observed
    trained: Observed
    teacher: Observed | None = None
    teacher_macs: int = 0


def prepare_networks(
    program: Program, form: Program, teacher: Program | None, options: Recover, hooks: AttachedHooks
) -> Networks:
    """The networks of a training, with the inner values that its hooks ask for; rewrites ``form`` in place.

    Raises:
        UsageError: Batch norms can't be synchronised, or a network has neither a module nor a node of some name.
    """
    if options.sync_batchnorm:
        synchronise_batchnorms(form, hooks.processes)
    inner = tuple(dict.fromkeys(name for attachment in hooks.attachments for name in attachment.inner))
    expose(form, inner)
    if hooks.processes.device.type == "cuda":
        pool_in_order(form.graph)
        form.module.recompile()
    module: nn.Module = form.module
    if options.compile:
        module = torch.compile(module)  # type: ignore[assignment]
    bind = partial(bound, program)
    whole = Observed(hooks.processes.parallel(module), bind, inner)
    networks = Networks(program, Observed(form.module, bind, inner), whole)
    teacher_inner = tuple(dict.fromkeys(name for attachment in hooks.attachments for name in attachment.teacher_inner))
    if teacher is None or not (options.distill or teacher_inner or any(a.teacher for a in hooks.attachments)):
        return networks
    observed = teacher.with_tensors(teacher.tensors())
    expose(observed, teacher_inner)
    return replace(
        networks, teacher=Observed(observed.module, partial(bound, teacher), teacher_inner), teacher_macs=teacher.macs()
    )


def expose(program: Program, names: Sequence[str]) -> None:
    """Let a network give (outputs, inner values) instead of its outputs alone, in place; without names nothing changes.

    Raises:
        UsageError: The network has neither a module nor a node of some name.
    """
    if not names:
        return
    graph = program.graph
    nodes = [_inner_node(graph, name) for name in names]
    output = graph.output_node()
    leaves = list(output.args[0])  # type: ignore[arg-type]
    output.args = ((*leaves, *nodes),)
    codegen: Any = graph._codegen
    outputs = pytree.tree_unflatten([0] * len(leaves), codegen.pytree_info.out_spec)
    widened = pytree.tree_structure((outputs, [0] * len(nodes)))
    graph.set_codegen(type(codegen)(codegen.pytree_info._replace(out_spec=widened)))
    program.module.recompile()


def _inner_node(graph: Graph, name: str) -> Node:
    """The last node of the module with this path, or the node of this name."""
    called: list[Node] = [node for node in graph.nodes if node.op in ("call_function", "call_module")]
    of_module = [node for node in called if f"{module_path(node)}.".startswith(f"{name}.")]
    named: list[Node] = [node for node in graph.nodes if node.name == name and node.op != "output"]
    if not of_module and not named:
        known = sorted({module_path(node) for node in called} | {node.name for node in called})
        raise UsageError(f"The network has neither a module nor a node {name!r}.", hint=did_you_mean(name, known))
    return (of_module or named)[-1]


def synchronise_batchnorms(training: Program, processes: Processes) -> None:
    """Let every batch norm in training form take its statistics over all processes' samples, in place.

    Raises:
        UsageError: The processes don't train on CUDA devices, where PyTorch has the kernels.
    """
    if processes.device.type != "cuda":
        raise UsageError(
            f"recover: sync_batchnorm needs CUDA devices, and training is on {processes.device.type}.",
            hint="Leave it out: each process then takes the statistics of its own share of the batch.",
        )
    if processes.count == 1:
        return  # its samples are all there are
    for node in list(calls(training.graph, "batch_norm")):
        bound = arguments(node)
        if bound["training"] and bound["running_mean"] is not None:
            names = ("input", "weight", "bias", "running_mean", "running_var", "eps", "momentum")
            node.target, node.args, node.kwargs = _batch_norm, tuple(bound[name] for name in names), {}
    training.module.recompile()


def _batch_norm(
    inputs: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, momentum: float
) -> Any:
    """PyTorch's own synchronised batch norm, in training form."""
    group = torch.distributed.group.WORLD
    count = torch.distributed.get_world_size()
    return SyncBatchNorm.apply(inputs.contiguous(), weight, bias, mean, variance, eps, momentum, group, count)  # type: ignore[no-untyped-call]
