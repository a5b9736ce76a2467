"""A small network of every kind of layer that trains otherwise than it infers, and what tests ask of a training."""

from typing import Any

import torch
from torch import Tensor, nn

from prunec.calibration.data import Data
from prunec.compiler.recovery.recover import DenseNetwork, Objective, Recover, Recovered, recover
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters

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


def run(
    program: Program,
    data: Data,
    options: Recover,
    teacher: Program | None = None,
    pruning: PruneFilters | None = None,
    **others: Any,
) -> Recovered:
    """Train with some of the fields of objective and dense network, and of the arguments of `recover`, changed."""
    dense = DenseNetwork(teacher, pruning=pruning)
    objective = Objective(**{name: others.pop(name) for name in ("loss", "metric") if name in others})
    return recover(program, options, data, objective=objective, dense=dense, **others)


def state(program: Program) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in program.tensors().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
