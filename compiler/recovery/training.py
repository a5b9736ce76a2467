"""One training under way: its epochs, and all that it needs to go on from any step."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunec.calibration.data import Data, Split
from prunec.calibration.splits import steps_per_epoch
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.recovered import EarlyEnd
from prunec.compiler.recovery.running_hook import Moment
from prunec.compiler.recovery.saved_training import SavedTraining, check_optimizer_state, check_tensors
from prunec.compiler.recovery.schedules import Schedule
from prunec.compiler.recovery.state_file import StateFile
from prunec.compiler.recovery.stepping import Stepper
from prunec.compiler.recovery.tensors import put, snapshot
from prunec.passes.errors import TrainingDivergedError
from prunec.passes.feeding import on, runner
from prunec.passes.interruption import Stopped, stoppable
from prunec.passes.program import Program
from prunec.runtime.evaluate import EVALUATION_BATCH, total_score

#: Receives every epoch and the network after it.
EpochProgress = Callable[[EpochRecord, Program], None]
#: Fields of a training that a saved state holds as they are.
_SAVED = ("step", "trained", "losses", "scores", "kept", "kept_decisions", "best_epoch")


@dataclass
class Training:
    """A program under training.

    Attributes:
        stepper: Changes the weights, batch by batch.
        schedule: The learning rate over the epochs.
        data: The data that the program is trained and evaluated on.
        seed: Seed of the order of the data and of their augmentation.
        curve: Records of the finished epochs.
        step: Number of steps of the epoch under way that are done.
        trained: Whether all of them are, with what ends an epoch, so that the network is only to be evaluated.
        losses: Losses of those steps.
        scores: Metric in those steps.
        kept: Tensors of the best epoch so far, where the best is kept.
        kept_decisions: Decisions of each hook at that epoch.
        best_epoch: Number of that epoch, counted from 1; 0 before there is one.
        early_end: The end of the training before its last epoch; None while no hook has ended it.
        earlier_seconds: Time that was spent before this process went on from a saved state.
        started: Time at which this process began, by `time.perf_counter`.
    """

    stepper: Stepper
    schedule: Schedule
    data: Data
    seed: int
    curve: list[EpochRecord] = field(default_factory=list)
    step: int = 0
    trained: bool = False
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    kept_decisions: list[Mapping[str, object]] = field(default_factory=list)
    best_epoch: int = 0
    early_end: EarlyEnd | None = None
    earlier_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Time spent so far, that before a resumption included."""
        return self.earlier_seconds + time.perf_counter() - self.started

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.data.train, self.stepper.options.batch_size)

    @property
    def evaluated(self) -> Program:
        """The network as it is evaluated: without its hooks, and the average of the weights where there is one."""
        average = self.stepper.average
        return self.stepper.hooks.detached(self.stepper.program if average is None else average.program)

    def run(self, file: StateFile | None, progress: EpochProgress | None) -> None:
        """Train to the end, from wherever it is.

        Raises:
            Stopped: It was asked for; the state is in the file.
            TrainingDivergedError: The loss or a weight is no longer finite.
        """
        while self.trained or (len(self.curve) < self.stepper.options.epochs and self.early_end is None):
            record, program = self._run_epoch(file)
            self.curve.append(record)
            self.step, self.trained, self.losses, self.scores = 0, False, [], []
            if self.stepper.options.keep == "best" and record.validation >= max(r.validation for r in self.curve):
                self.best_epoch, self.kept = record.epoch, snapshot(program)
                self.kept_decisions = self.stepper.hooks.decided()
            self._write(file)
            if progress is not None:
                progress(record, program)

    def result(self) -> tuple[Program, list[Mapping[str, object]]]:
        """The network that is kept, without its hooks, and what each of these had decided of it."""
        program = self.evaluated
        put(program, self.kept)
        return program, self.kept_decisions if self.kept else self.stepper.hooks.decided()

    def _run_epoch(self, file: StateFile | None) -> tuple[EpochRecord, Program]:
        epoch, started = len(self.curve), time.perf_counter()
        if not self.trained:
            self._train_epoch(file)
        self._stop_if_asked(file)
        program = self.evaluated
        try:
            validation, test = (self._evaluate(program, split) for split in (self.data.validation, self.data.test))
        except Stopped:  # evaluating changes nothing
            self._write(file)
            raise
        record = EpochRecord(
            epoch=epoch + 1,
            learning_rate=self.schedule.learning_rate(epoch),
            train_loss=math.fsum(self.losses) / len(self.losses),
            train=math.fsum(self.scores) / len(self.scores),
            validation=validation,
            test=test,
            seconds=time.perf_counter() - started,
        )
        return record, program

    def _train_epoch(self, file: StateFile | None) -> None:
        """Take the steps of the epoch under way that are left, and end it."""
        options, epoch = self.stepper.options, len(self.curve)
        share = self.stepper.processes.share
        batches = self.data.train.batches(options.batch_size, epoch=epoch, seed=self.seed, first=self.step, share=share)
        for inputs, labels in batches:
            self._stop_if_asked(file)
            if file is not None and file.is_due(self.step):
                file.write(self.state())
            result = self.stepper.step(inputs, labels, self._moment(self.step))
            if not math.isfinite(result.loss):
                raise self._diverged(f"the loss is {result.loss}")
            self.losses.append(result.loss)
            self.scores.append(result.score)
            self.step += 1
        self.early_end = self.stepper.hooks.end_epoch(self._moment(self.step))
        self._check_weights()
        self.trained = True

    def _stop_if_asked(self, file: StateFile | None) -> None:
        """Stop with all processes at the same step, and keep the state."""
        if number := self.stepper.processes.asked_to_stop():
            self._write(file)
            raise Stopped(number)

    def _write(self, file: StateFile | None) -> None:
        if file is not None:
            file.write(self.state())

    def _moment(self, step: int) -> Moment:
        """The point in time before a step of the epoch under way, or after the last one."""
        under_way = min(step, self.steps_per_epoch - 1)
        rate = self.schedule.learning_rate(len(self.curve) + under_way / self.steps_per_epoch)
        return Moment(len(self.curve) + 1, step, rate)

    def _evaluate(self, program: Program, split: Split) -> float:
        processes = self.stepper.processes
        batches = (
            (on(inputs, processes.device), labels.to(processes.device))
            for inputs, labels in stoppable(split.batches(EVALUATION_BATCH, share=processes.share))
        )
        total, count = processes.sums(*total_score(runner(program), batches, self.stepper.objective.metric))
        return total / count

    def _check_weights(self) -> None:
        for name, tensor in {**self.stepper.program.tensors(), **self.stepper.hooks.parameters()}.items():
            if not torch.isfinite(tensor).all():
                raise self._diverged(f"{name} holds values that are not finite")

    def _diverged(self, what: str) -> TrainingDivergedError:
        epochs, step = self.stepper.options.epochs, min(self.step, self.steps_per_epoch - 1)
        rate = self._moment(self.step).learning_rate
        return TrainingDivergedError(
            f"The recovery finetune diverged: {what} in epoch {len(self.curve) + 1} of {epochs}, step {step + 1} "
            f"of {self.steps_per_epoch}, at learning rate {rate:.3g} (schedule {self.schedule}).",
            hint=f"Try a lower learning rate, such as {rate / 10:.1g}, and check that the data are "
            "normalised as the network expects.",
        )

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on. All processes must ask for it together."""
        average = self.stepper.average
        return {
            "curve": [asdict(record) for record in self.curve],
            **{name: getattr(self, name) for name in _SAVED},
            "seconds": self.seconds,
            "tensors": snapshot(self.stepper.program),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "average": None if average is None else {"tensors": snapshot(average.program), "updates": average.updates},
            "early_end": None if self.early_end is None else asdict(self.early_end),
            "hooks": self.stepper.hooks.state(),
            "random": self.stepper.processes.gathered(_random_state()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same training.

        Raises:
            Exception: The state isn't what `state` gives; nearly any, so that the caller says which file is wrong.
        """
        saved = SavedTraining.model_validate(state)
        self._check_fit(saved)
        self.curve = saved.curve
        for name in _SAVED:
            setattr(self, name, getattr(saved, name))
        self.earlier_seconds = saved.seconds
        self.early_end = saved.early_end
        put(self.stepper.program, saved.tensors)
        self.stepper.optimizer.load_state_dict(saved.optimizer)
        self.stepper.scaler.load_state_dict(saved.scaler)
        if self.stepper.average is not None and saved.average is not None:
            put(self.stepper.average.program, saved.average.tensors)
            self.stepper.average.updates = saved.average.updates
        self.stepper.hooks.restore(saved.hooks)
        _set_random_state(saved.random[self.stepper.processes.rank])

    def _check_fit(self, saved: SavedTraining) -> None:
        """ValueError where a state, whole in itself, isn't of this network, this optimizer or this many epochs."""
        own = self.stepper.program.tensors()
        check_tensors(saved.tensors, own, "tensors")
        for name, stored in (("kept", saved.kept), ("average", saved.average and saved.average.tensors)):
            if stored:
                check_tensors(stored, own, name)
        check_optimizer_state(saved.optimizer, self.stepper.optimizer)
        if (saved.average is None) != (self.stepper.average is None):
            raise ValueError("it has an average of the weights where none is kept, or none where one is")
        if len(saved.curve) > self.stepper.options.epochs or saved.step > self.steps_per_epoch:
            raise ValueError("it has more epochs or steps than the training")


def _random_state() -> list[Tensor]:
    """States of the generators that dropout draws from: the processor's, and the GPU's where there is one."""
    gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpu]


def _set_random_state(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
