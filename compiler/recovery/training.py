"""One recovery finetune under way: its epochs, and all that it needs to go on from any step."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunec.calibration.data import Data, Split
from prunec.calibration.splits import steps_per_epoch
from prunec.compiler.recovery.schedules import Schedule
from prunec.compiler.recovery.state_file import StateFile
from prunec.compiler.recovery.stepping import Stepper
from prunec.passes.errors import TrainingDivergedError
from prunec.passes.program import Program
from prunec.runtime.evaluate import total_score

#: Samples per batch of an evaluation; larger ones fall out of a CPU's caches.
_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a learning curve.

    Attributes:
        epoch: counted from 1.
        learning_rate: at the start of the epoch.
        train_loss: mean over its steps, distillation included.
        train: mean metric over its steps, of the network as it was then, in training form, on augmented data.
        validation: metric on the validation data after it, 0 to 1.
        test: metric on the test data after it; watched only, nothing is chosen on it.
        seconds: it took, evaluation included.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train: float
    validation: float
    test: float
    seconds: float


#: Told of every epoch and of the network after it.
EpochProgress = Callable[[EpochRecord, Program], None]


@dataclass
class Training:
    """A program under training.

    Attributes:
        stepper: changes its weights.
        seed: of the order of the data and of their augmentation.
        curve: of the finished epochs.
        step: of the epoch under way, steps done.
        losses: of those steps.
        scores: of the metric in those steps.
        kept: tensors of the best epoch so far, where the best is kept.
        best_epoch: counted from 1; 0 before there is one.
        earlier_seconds: spent before this process went on from a saved state.
        started: when it began, by `time.perf_counter`.
    """

    stepper: Stepper
    schedule: Schedule
    data: Data
    seed: int
    curve: list[EpochRecord] = field(default_factory=list)
    step: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    earlier_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def program(self) -> Program:
        """The network as it is evaluated: the moving average of the weights where there is one."""
        average = self.stepper.average
        return self.stepper.program if average is None else average.program

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return self.earlier_seconds + time.perf_counter() - self.started

    def run(self, file: StateFile | None, progress: EpochProgress | None) -> None:
        """Train to the end, from wherever it is.

        Raises:
            TrainingDivergedError: the loss or a weight is no longer finite.
        """
        while len(self.curve) < self.stepper.options.epochs:
            record = self._run_epoch(file)
            self.curve.append(record)
            self.step, self.losses, self.scores = 0, [], []
            if self.stepper.options.keep == "best" and record.validation >= max(r.validation for r in self.curve):
                self.best_epoch, self.kept = record.epoch, snapshot(self.program)
            if file is not None:
                file.write(self.state())
            if progress is not None:
                progress(record, self.program)

    def _run_epoch(self, file: StateFile | None) -> EpochRecord:
        options, epoch, started = self.stepper.options, len(self.curve), time.perf_counter()
        share = self.stepper.processes.share
        batches = self.data.train.batches(options.batch_size, epoch=epoch, seed=self.seed, first=self.step, share=share)
        for inputs, labels in batches:
            if file is not None and file.is_due(self.step):
                file.write(self.state())
            result = self.stepper.step(inputs, labels, self._learning_rate)
            if not math.isfinite(result.loss):
                raise self._diverged(f"the loss is {result.loss}")
            self.losses.append(result.loss)
            self.scores.append(result.score)
            self.step += 1
        self._check_weights()
        return EpochRecord(
            epoch=epoch + 1,
            learning_rate=self.schedule.learning_rate(epoch),
            train_loss=math.fsum(self.losses) / len(self.losses),
            train=math.fsum(self.scores) / len(self.scores),
            validation=self._evaluate(self.data.validation),
            test=self._evaluate(self.data.test),
            seconds=time.perf_counter() - started,
        )

    @property
    def _steps(self) -> int:
        return steps_per_epoch(self.data.train, self.stepper.options.batch_size)

    @property
    def _learning_rate(self) -> float:
        return self.schedule.learning_rate(len(self.curve) + self.step / self._steps)

    def _evaluate(self, split: Split) -> float:
        processes = self.stepper.processes
        batches = (
            (inputs.to(processes.device), labels.to(processes.device))
            for inputs, labels in split.batches(_EVALUATION_BATCH, share=processes.share)
        )
        total, count = processes.sums(*total_score(self.program, batches, self.stepper.metric))
        return total / count

    def _check_weights(self) -> None:
        for name, tensor in self.stepper.program.tensors().items():
            if not torch.isfinite(tensor).all():
                raise self._diverged(f"{name} holds values that are not finite")

    def _diverged(self, what: str) -> TrainingDivergedError:
        epochs, step = self.stepper.options.epochs, min(self.step, self._steps - 1)
        rate = self._learning_rate
        return TrainingDivergedError(
            f"The recovery finetune diverged: {what} in epoch {len(self.curve) + 1} of {epochs}, step {step + 1} "
            f"of {self._steps}, at learning rate {rate:.3g} (schedule {self.schedule}).",
            hint=f"Try a lower learning rate, such as {rate / 10:.1g}, and check that the data are "
            "normalised as the network expects.",
        )

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on. All processes must ask for it together."""
        average = self.stepper.average
        return {
            "curve": [asdict(record) for record in self.curve],
            "step": self.step,
            "losses": self.losses,
            "scores": self.scores,
            "seconds": self.seconds,
            "tensors": snapshot(self.stepper.program),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "average": None if average is None else {"tensors": snapshot(average.program), "updates": average.updates},
            "kept": self.kept,
            "best_epoch": self.best_epoch,
            "random": self.stepper.processes.gathered(_random_state()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same training."""
        self.curve = [EpochRecord(**record) for record in state["curve"]]
        self.step, self.losses, self.scores = state["step"], list(state["losses"]), list(state["scores"])
        self.earlier_seconds = state["seconds"]
        self.kept, self.best_epoch = state["kept"], state["best_epoch"]
        put(self.stepper.program, state["tensors"])
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        if self.stepper.average is not None:
            put(self.stepper.average.program, state["average"]["tensors"])
            self.stepper.average.updates = state["average"]["updates"]
        _set_random_state(state["random"][self.stepper.processes.rank])


def snapshot(program: Program) -> dict[str, Tensor]:
    """Copies of all tensors by name."""
    return {name: tensor.detach().clone() for name, tensor in program.tensors().items()}


@torch.no_grad()
def put(program: Program, tensors: dict[str, Tensor]) -> None:
    """Give a program's tensors these values, in place."""
    current = program.tensors()
    for name, tensor in tensors.items():
        current[name].copy_(tensor)


def _random_state() -> list[Tensor]:
    """Of the generators that dropout draws from: the processor's, and the GPU's where there is one."""
    gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpu]


def _set_random_state(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
