"""Programs on other devices, and in other orders of memory."""

import torch
from torch.fx import Graph

from prunec.passes.graphs import arguments, calls, set_argument
from prunec.passes.program import Program, copied, copied_inputs


def on_device(program: Program, device: torch.device) -> Program:
    """A copy of a program with all its tensors on a device, and those that its graph makes."""
    clone = program.with_tensors(copied(program.tensors(), device))
    clone.masks = {name: mask.to(device, copy=True) for name, mask in program.masks.items()}
    clone.example_args, clone.example_kwargs = copied_inputs((program.example_args, program.example_kwargs), device)
    _make_on(clone.graph, device)
    clone.module.recompile()
    return clone


def order_memory(program: Program, memory_format: torch.memory_format) -> None:
    """Lay out all filters of images in this order, in place; values stay."""
    for parameter in program.module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


def _make_on(graph: Graph, device: torch.device) -> None:
    """Let every operator that names a device name this one."""
    for node in calls(graph):
        if isinstance(node.target, torch._ops.OpOverload):
            for name, value in arguments(node).items():
                if isinstance(value, torch.device):
                    set_argument(node, name, device)
