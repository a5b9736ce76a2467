"""Retrainings with a fault or none, and what is true of them by brute force: a far longer retraining at a good rate."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import nn

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepInput, facts_of
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.recovery.diagnosis import Diagnosis
from prunec.compiler.recovery.objective import DEFAULT_OBJECTIVE
from prunec.compiler.recovery.recover import Recover, recover
from prunec.compiler.recovery.recovered import Retraining
from prunec.compiler.recovery.schedules import Schedule, parse_schedule
from prunec.compiler.stages.step_runs import dense_fact, run_steps
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.runtime.target import Target

PICTURES = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "fashion_mnist.npz"
#: Faults of schedules: too few epochs, too small a rate, none that decays; and schedules without one.
SHORT = (("cosine:0.02", 1), ("cosine:0.03", 2), ("cosine:0.001", 6), ("constant:0.0005", 5), ("constant:0.06", 4))
DONE = (("cosine:0.06", 50), ("clr:0.04", 45), ("step:0=0.06,25=0.006,40=0.0006", 50))
RATIOS = (0.15, 0.4, 0.75, 0.92)
#: Epochs and schedules of the brute force, the better of which tells what is true.
LONG = ((100, "cosine:0.03"), (100, "cosine:0.08"))
BATCH = 50


@dataclass(frozen=True)
class Case:
    """A retraining of a network of which this share of the filters was pruned."""

    ratio: float
    schedule: str
    epochs: int

    @property
    def pipeline(self) -> str:
        options = f'epochs={self.epochs},schedule="{self.schedule}",batch_size={BATCH}'
        return f"{self.pruning} recover{{{options}}}"

    @property
    def pruning(self) -> str:
        return f"prune-filters{{ratio={self.ratio},min_channels=2}}"


@dataclass(frozen=True)
class Outcome:
    """The accuracy on the test data, in percent, and the diagnosis, which doesn't know it."""

    accuracy: float
    diagnosis: Diagnosis
    retraining: Retraining = field(repr=False)


class Network(nn.Module):
    """Three convolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        channels = (1, width, 2 * width, 2 * width)
        layers: list[nn.Module] = []
        for number, (inner, outer) in enumerate(pairwise(channels)):
            stride = 2 if number == 1 else 1
            layers += [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1], 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.head(self.body(images).mean((2, 3)))
        return features


class Task:
    """A dense network and its data: small clothes, 14x14, of which it never saw those for validation.

    Args:
        folder: Folder for the data.
        images: Training images, a fifth of them for validation.
        seed: Seed of the dense network.
        augment: Augmentations of the retrainings.
    """

    dense_schedule: Schedule = parse_schedule("cosine:0.08", epochs=20)

    def __init__(self, folder: Path, images: int, seed: int, augment: tuple[str, ...] = ()) -> None:
        with np.load(PICTURES) as arrays:
            small = {name: arrays[name] for name in arrays.files}
        for part, count in (("train", images), ("test", 3000)):
            pixels = small[f"{part}_images"][:count].reshape(count, 14, 2, 14, 2).mean((2, 4))
            small |= {f"{part}_images": pixels.astype(np.uint8), f"{part}_labels": small[f"{part}_labels"][:count]}
        np.savez(folder / "small.npz", **small)  # type: ignore[arg-type]
        self.folder, self.seed, self.augment = folder, seed, augment

    def data(self, augment: tuple[str, ...] = ()) -> Data:
        source = "npz:small.npz"
        config = DataConfig(source, source, (0.286,), (0.353,), augment=augment, validation_fraction=0.2)
        return load_data(config, self.folder, self.seed)

    @cached_property
    def dense(self) -> Program:
        torch.manual_seed(self.seed)
        random = capture(Network(), (torch.zeros(2, 1, 14, 14),))
        schedule = self.dense_schedule
        options = Recover(epochs=20, schedule=str(schedule), batch_size=BATCH, keep="last")
        return recover(random, options, self.data(), seed=self.seed).program

    def run(self, pipeline: str, augment: tuple[str, ...] | None = None) -> Outcome:
        """Prune and retrain as a pipeline says, and diagnose that."""
        steps = parse_pipeline(pipeline)
        history = self._run(steps, self.data(self.augment if augment is None else augment))
        retraining = facts_of(history.history, Retraining)[-1]
        accuracy = history.history[-1].accuracy
        assert isinstance(accuracy, float)
        assert isinstance(retraining.diagnosis, Diagnosis)
        return Outcome(100 * accuracy, retraining.diagnosis, retraining)

    def dense_accuracy(self) -> float:
        """Of the dense network on the test data, in percent."""
        accuracy = self._run(Pipeline(()), self.data()).history[0].accuracy
        assert isinstance(accuracy, float)
        return 100 * accuracy

    def _run(self, pipeline: Pipeline, data: Data) -> StepInput:
        settings = Settings(seed=self.seed, pretraining=self.dense_schedule)
        request = Request(self.dense, Target.parse("cpu"), pipeline, data, DEFAULT_OBJECTIVE, settings)
        return run_steps(StepInput(self.dense, request, self.seed, (dense_fact(request),)), pipeline)


def drawn(seed: int, count: int) -> list[Case]:
    """Cases, half of them with a fault in their schedule."""
    draw = Random(seed)
    cases = []
    for number in range(count):
        schedule, epochs = draw.choice(SHORT if number % 2 else DONE)
        cases.append(Case(draw.choice(RATIOS), schedule, epochs))
    return cases


def longest(task: Task, ratio: float) -> float:
    """The best accuracy that brute force reaches, in percent."""
    cases = (Case(ratio, schedule, epochs) for epochs, schedule in LONG)
    return max(task.run(case.pipeline.replace("recover{", "recover{probe=0,")).accuracy for case in cases)


def truth(dense: float, got: float, long: float, limit: float = 1.5) -> tuple[str, bool]:
    """What is true of a retraining, and whether it is within half a point of a border; all in percent.

    It is under-trained if brute force wins the limit and a third of what was missing; "either" if less than a third;
    over-pruned if it doesn't, and the best is still short of the dense network by the limit.
    """
    gain, below, missing = long - got, dense - max(long, got), dense - got
    if gain >= limit:
        return ("either" if gain < missing / 3 else "under-trained"), gain < limit + 0.5
    near = gain > limit - 0.5 or abs(below - limit) < 0.5
    return ("over-pruned" if below >= limit else "converged"), near


#: Verdicts that are right beside the truth itself.
RIGHT = {
    "under-trained": ("under-trained", "noisy", "diverging"),
    "either": ("under-trained", "over-pruned", "noisy", "diverging"),
    "over-pruned": ("over-pruned", "over-fitted"),
    "converged": ("converged", "over-fitted"),
}


def followed(advice: str, case: Case) -> str:
    """The pipeline of a case with the retraining that an advice names, without a probe."""
    step = parse_pipeline(advice.partition(": ")[2]).of(Recover)[0]
    options = replace(step, batch_size=BATCH)
    return f'{case.pruning} recover{{epochs={options.epochs},schedule="{options.schedule}",batch_size={BATCH},probe=0}}'
