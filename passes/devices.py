"""Programs on other devices, and in other orders of memory."""

import torch

from prunec.passes.graphs import arguments, calls, set_argument
from prunec.passes.program import Program
from prunec.passes.tensors import copied, copied_inputs


def on_device(program: Program, device: torch.device) -> Program:
    """A copy of a program whose tensors, and the tensors that its graph makes, are on a device."""
    clone = program.with_tensors(copied(program.tensors(), device))
    clone.masks = {name: mask.to(device, copy=True) for name, mask in program.masks.items()}
    clone.example_args, clone.example_kwargs = copied_inputs((program.example_args, program.example_kwargs), device)
    for node in calls(clone.graph):
        bound = arguments(node) if isinstance(node.target, torch._ops.OpOverload) else {}
        for name in (name for name, value in bound.items() if isinstance(value, torch.device)):
            set_argument(node, name, device)
    clone.module.recompile()
    return clone


def order_memory(program: Program, memory_format: torch.memory_format) -> None:
    """Give all four-dimensional parameters a memory format, in place; their values stay."""
    for parameter in program.module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
