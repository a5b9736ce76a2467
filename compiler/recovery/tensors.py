"""The values of a network's tensors: copied, put back and averaged."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prunec.passes.program import Program


def snapshot(program: Program) -> dict[str, Tensor]:
    """Copies of all tensors by name."""
    return {name: tensor.detach().clone() for name, tensor in program.tensors().items()}


@torch.no_grad()
def put(program: Program, tensors: Mapping[str, Tensor]) -> None:
    """Give a program's tensors these values, in place."""
    current = program.tensors()
    for name, tensor in tensors.items():
        current[name].copy_(tensor)


class WeightAverage:
    """Exponential moving average of all tensors of a program, which often generalises better than the last ones.

    The first decays are smaller, (1 + n) / (10 + n) after n steps, so that short runs don't keep their beginning.

    Attributes:
        program: The network with the averages for tensors, in inference form.
        updates: Number of updates so far.
    """

    def __init__(self, program: Program, decay: float) -> None:
        self.program = program.clone().eval()
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, program: Program) -> None:
        """Move towards a program's tensors; counters, which are whole numbers, become equal."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        # Parameters and buffers of a module name tied tensors once.
        averages, currents = ([*p.module.parameters(), *p.module.buffers()] for p in (self.program, program))
        for average, current in zip(averages, currents, strict=True):
            if average.is_floating_point():
                average.lerp_(current, 1 - decay)
            else:
                average.copy_(current)
