"""A small network of every kind of layer that trains otherwise than it infers, and what tests ask of a training."""

from typing import Any

import torch
from torch import Tensor, nn

from prunec.calibration.data import Data
from prunec.compiler.recovery.recover import DenseNetwork, Objective, Recover, Recovered, recover
from prunec.passes.program import Program

OPTIONS = Recover(epochs=3, schedule="constant:0.05", batch_size=32)


def network(dropout: float = 0.1, norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(128, 4),
    )


def run(program: Program, data: Data, options: Recover, teacher: Program | None = None, **others: Any) -> Recovered:
    """Train with some of the objective's fields and of the arguments of `recover` changed."""
    objective = Objective(**{name: others.pop(name) for name in ("loss", "metric") if name in others})
    return recover(program, options, data, objective=objective, dense=DenseNetwork(teacher), **others)


def state(program: Program) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in program.tensors().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
