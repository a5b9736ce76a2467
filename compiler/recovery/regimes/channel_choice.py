"""The greedy choice of input channels by the gradient of a loss (Zhuang et al., NeurIPS 2018, algorithm 2)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunec.compiler.recovery.regimes.unit_parts import UnitSlices

#: Weights by name -> the loss of the network with them in place of its own, a scalar with a gradient.
ChannelLoss = Callable[[Mapping[str, Tensor]], Tensor]
#: Gradients of one process -> their means over all processes.
Averaged = Callable[[Sequence[Tensor]], Sequence[Tensor]]
_HALVINGS = 10


@dataclass
class ChannelChoice:
    """The channels that are chosen so far, and the weights that read them.

    Attributes:
        readers: The weights that read the units.
        loss: The loss as a function of these weights; the same in all processes.
        averaged: Averages gradients over the processes.
        weights: The weights, the chosen slices as far as they were trained.
        order: The units that were chosen, in their order.
        steps: The loss before and after each step of the chosen weights.
        passes: Runs of the loss forward, and backward.
    """

    readers: tuple[UnitSlices, ...]
    loss: ChannelLoss
    averaged: Averaged
    weights: dict[str, Tensor]
    order: list[int] = field(default_factory=list)
    steps: list[tuple[float, float]] = field(default_factory=list)
    passes: tuple[int, int] = (0, 0)

    def choose(self, count: int, rounds: int, rate: float) -> None:
        """Choose so many units in some rounds, with a step of the chosen weights after each."""
        at_once = -(-count // rounds)
        while len(self.order) < count:
            self.add(min(at_once, count - len(self.order)))
            self.step(rate)

    def add(self, count: int) -> None:
        """Add the units by whose slices the gradient is largest, with their weights."""
        _, gradients = self._gradients()
        squares = torch.stack([reader.squares(gradients[reader.name]) for reader in self.readers]).sum(0)
        squares[self._chosen() > 0] = -1.0
        self.order += squares.argsort(descending=True, stable=True)[:count].tolist()

    def step(self, rate: float) -> None:
        """Move the chosen weights against the gradient by a rate that is halved until the loss falls."""
        before, gradients = self._gradients()
        chosen = self._chosen()
        for halvings in range(_HALVINGS):
            moved = {
                reader.name: self.weights[reader.name]
                - rate / 2**halvings * reader.scaled(gradients[reader.name], chosen)
                for reader in self.readers
            }
            with torch.no_grad():
                after = float(self.loss(self.masked(moved)))
            self._ran(backward=False)
            if after < before:
                self.weights.update(moved)
                self.steps.append((before, after))
                break

    def masked(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights with the slices that aren't chosen at zero."""
        chosen = self._chosen()
        return {reader.name: reader.scaled(weights[reader.name], chosen) for reader in self.readers}

    def _gradients(self) -> tuple[float, dict[str, Tensor]]:
        """The loss, and its gradients by all slices of the masked weights, chosen or not."""
        leaves = {name: weight.detach().requires_grad_() for name, weight in self.masked(self.weights).items()}
        loss = self.loss(leaves)
        means = self.averaged(torch.autograd.grad(loss, list(leaves.values())))
        self._ran(backward=True)
        return float(loss.detach()), dict(zip(leaves, means, strict=True))

    def _chosen(self) -> Tensor:
        """Whether each unit is chosen, as numbers 1 and 0, (units,)."""
        rows = self.readers[0].rows
        chosen = torch.zeros(len(rows), device=rows.device)
        chosen[torch.tensor(self.order, dtype=torch.int64, device=rows.device)] = 1.0
        return chosen

    def _ran(self, *, backward: bool) -> None:
        forwards, backwards = self.passes
        self.passes = forwards + 1, backwards + backward
