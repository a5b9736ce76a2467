"""A training before a pruning, and the pruning behind it, as tests of regimes run them."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunec.calibration.data import Data
from prunec.compiler.recovery.hooks import TrainingHook
from prunec.compiler.recovery.recover import DenseNetwork, Recovered, recover
from prunec.compiler.recovery.running_hook import RunningHook, TrainingContext
from prunec.passes.base import PassResult
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from tests.recovery.networks import OPTIONS, network

#: A training whose last epoch is kept, as regimes ask for.
LAST = replace(OPTIONS, keep="last", schedule="cosine:0.05")
#: One step on all training data.
ONE_STEP = replace(LAST, epochs=1, batch_size=540, schedule="constant:0.1", momentum=0.0, weight_decay=0.0)
GLOBAL = PruneFilters(ratio=0.5, criterion="learned", allocation="global", seed=0)
UNIFORM = PruneFilters(ratio=0.5, criterion="learned", seed=0)
#: Every regime that readies filters, as a recipe names it, and the pruning behind it.
REGIMES = {
    **dict.fromkeys(("greg-1", "greg-2", "network-slimming{penalty=0.01}", "sfp", "ssl{penalty=0.01}"), UNIFORM),
    **dict.fromkeys(("ssl{structure=channel}", "cnn-fcf", "lfpc", "dcp"), UNIFORM),
    **dict.fromkeys(("resrep", "gal"), GLOBAL),
}


@dataclass(frozen=True)
class Watched(TrainingHook):
    """Another hook, whose running part tests look at."""

    hook: TrainingHook
    name: ClassVar[str] = "watched"
    started: ClassVar[list[Any]] = []

    @property
    def held_out_fraction(self) -> float:
        return self.hook.held_out_fraction

    def start(self, training: TrainingContext) -> RunningHook:
        Watched.started.append(self.hook.start(training))
        return Watched.started[-1]  # type: ignore[no-any-return]


class Net(nn.Module):
    """Three convolutions with batch norms, the middle one's filters summed with those of none; and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 8, 3, 1, 1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def small() -> Program:
    return capture(network(dropout=0.0), (torch.zeros(2, 1, 8, 8),))


def net() -> Program:
    torch.manual_seed(0)
    return capture(Net().eval(), (torch.zeros(2, 1, 8, 8),))


def trained(
    program: Program, data: Data, hook: TrainingHook, pruning: PruneFilters | None, options: Any = LAST, **others: Any
) -> Recovered:
    """Train with a hook, with the network itself for its teacher."""
    options = replace(options, hooks=(hook,))
    return recover(program, options, data, dense=DenseNetwork(program, pruning=pruning), **others)


def watched(program: Program, data: Data, hook: TrainingHook, pruning: PruneFilters, options: Any = LAST) -> Any:
    """The result of a training, and the running part of its hook."""
    Watched.started.clear()
    return trained(program, data, Watched(hook), pruning, options), Watched.started[0]


def pruned(result: Recovered, pruning: PruneFilters) -> PassResult:
    """The network that a training gave, pruned by what its hook decided."""
    return pruning.run(result.program, Evidence({}, decisions=result.hooks[0].decided))


@torch.no_grad()
def difference(first: Program, second: Program) -> float:
    """The largest difference of two networks' outputs in float64, over the largest of the second's."""
    generator = torch.Generator().manual_seed(0)
    example = second.example_inputs[0]
    x = torch.randn(16, *example.shape[1:], generator=generator, dtype=torch.float64)
    one, other = first.double().inference()(x), second.double().inference()(x)
    return float((one - other).abs().max() / other.abs().max())


def removed_units(result: PassResult, name: str) -> list[int]:
    """Number of units that a group lost, and its width."""
    (group,) = [group for group in result.stats["groups"] if group["name"] == name]
    return [group["width"] - group["kept"], group["width"]]
