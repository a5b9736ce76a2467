"""Small networks for regimes, a hook that watches, and what tests ask of a training before a pruning."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prunec.calibration.data import Data
from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.recover import Recover, Recovered
from prunec.compiler.recovery.running_hook import Moment, RunningHook
from prunec.passes.base import PassResult
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from tests.recovery.networks import run
from tests.recovery.toy_hooks import Toy

OPTIONS = Recover(epochs=3, schedule="constant:0.05", batch_size=32, keep="last")
#: Half of the filters of both groups.
PRUNING = PruneFilters(ratio=0.5, criterion="learned", seed=0)
#: Steps of an epoch of the 540 training images.
STEPS = 16
IMAGE = (torch.zeros(2, 1, 8, 8),)


def plain() -> Program:
    """Two convolutions with batch norms, whose groups are named 0 and 3, and a linear layer of 16 inputs a filter."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    return capture(module, IMAGE)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))


def residual() -> Program:
    """A convolution and two residual branches."""
    torch.manual_seed(0)
    stem = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
    return capture(
        nn.Sequential(stem, nn.BatchNorm2d(8), nn.ReLU(), Branch(), Branch(), nn.Flatten(), nn.Linear(128, 4)), IMAGE
    )


@torch.no_grad()
def redrawn(program: Program) -> Program:
    """The program with norms that scale and shift at random."""
    random = torch.Generator().manual_seed(1)
    for parameter in program.parameters().values():
        if parameter.ndim == 1:
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return program


def prepare(
    program: Program,
    data: Data,
    *hooks: TrainingHook,
    options: Recover = OPTIONS,
    pruning: PruneFilters | None = PRUNING,
    **others: Any,
) -> Recovered:
    """Train before a pruning, with toys that start anew."""
    Toy.started.clear()
    return run(program, data, replace(options, hooks=hooks), pruning=pruning, **others)


def cut(result: Recovered, pruning: PruneFilters = PRUNING) -> PassResult:
    """The pruning of what a training left, by what its first hook decided."""
    return pruning.run(result.program, Evidence({}, decisions=result.hooks[0].decided))


def stays(result: PassResult, weight: str) -> list[int]:
    """The filters of a weight that a pruning kept."""
    assert result.plan is not None
    kept = result.plan.kept.get(weight, {}).get(0)
    return list(range(len(result.program.tensors()[weight]))) if kept is None else list(kept)


def zero_filters(weight: Tensor) -> list[int]:
    """The filters of a weight that are zero."""
    return torch.nonzero((weight.flatten(1) == 0).all(1)).flatten().tolist()


@torch.no_grad()
def difference(first: Program, second: Program, inputs: Tensor) -> float:
    """The largest difference of outputs."""
    return float((first(inputs) - second(inputs)).abs().max())


@dataclass
class RunningWatch(RunningHook):
    options: "Watch"

    def __post_init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def after_update(self, moment: Moment) -> None:
        self.seen.append({name: p.detach().clone() for name, p in self.training.program.parameters().items()})


@dataclass(frozen=True)
class Watch(Toy):
    """Keeps the parameters after each step, as the hooks before it leave them."""

    name = "watch"
    running = RunningWatch


def others(count: int, some: Iterable[int]) -> list[int]:
    """All numbers below a count but some."""
    return sorted(set(range(count)) - set(some))
