"""A moving average of a network's weights, which often generalises better than the last ones."""

import torch
from torch import Tensor

from prunec.passes.program import Program


class WeightAverage:
    """Exponential moving average of all tensors of a program.

    The first decays are smaller, (1 + n) / (10 + n) after n steps, so that short runs don't keep their beginning.

    Attributes:
        program: with the averages, in inference form.
        updates: how often it was moved.
    """

    def __init__(self, program: Program, decay: float) -> None:
        self.program = program.clone().eval()
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, program: Program) -> None:
        """Move towards a program's tensors; what is no fraction (counters) becomes equal."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for average, current in zip(_distinct(self.program), _distinct(program), strict=True):
            if average.is_floating_point():
                average.lerp_(current, 1 - decay)
            else:
                average.copy_(current)


def _distinct(program: Program) -> list[Tensor]:
    """All tensors, tied ones once."""
    return [*program.module.parameters(), *program.module.buffers()]
