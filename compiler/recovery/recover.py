"""Recovery: retraining a pruned network until its accuracy is back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from prunec.calibration.data import Data
from prunec.calibration.splits import mixed_seed
from prunec.compiler.recovery.losses import Loss
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery.prepare import start_training
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.schedules import Schedule
from prunec.compiler.recovery.state_file import Identity, StateFile
from prunec.compiler.recovery.trainability import trainability_accuracy
from prunec.compiler.recovery.training import EpochProgress, EpochRecord, Training, put
from prunec.passes.devices import on_device, order_memory
from prunec.passes.program import Program, fingerprint
from prunec.runtime.evaluate import Metric

__all__ = ["EpochRecord", "Loss", "Recover", "RecoveryResult", "StateOptions", "recover"]


@dataclass(frozen=True)
class StateOptions:
    """Whether and where the state of a training is kept, so that it can go on after it was stopped.

    Attributes:
        path: of the file that holds the last state.
        resume: go on from what the file holds, where it exists.
        every_steps: how often within an epoch the state is written; it always is after an epoch.
    """

    path: Path
    resume: bool = False
    every_steps: int | None = None


@dataclass(frozen=True)
class RecoveryResult:
    """A retrained network and how it came about.

    Attributes:
        program: in its inference form, masks held.
        curve: one record per epoch.
        learning_rates: [epoch, learning rate] at every change, or of every epoch where it always changes.
        best_epoch: the epoch whose network was kept, counted from 1.
        trainability_accuracy: mean test metric over the first stage of constant learning rate.
        trainability_epochs: length of that stage.
        trainability_reason: why there is no trainability accuracy.
        processes: that trained together.
        resumed: whether it went on from a saved state.
        seconds: of the whole retraining.
    """

    program: Program
    curve: list[EpochRecord]
    learning_rates: list[list[float]]
    best_epoch: int
    trainability_accuracy: float | None
    trainability_epochs: int | None
    trainability_reason: str | None
    processes: int
    resumed: bool
    seconds: float


def recover(
    program: Program,
    options: Recover,
    data: Data,
    *,
    teacher: Program | None,
    loss: Loss,
    metric: Metric,
    seed: int,
    original: Schedule | None = None,
    state: StateOptions | None = None,
    progress: EpochProgress | None = None,
) -> RecoveryResult:
    """Retrain a copy of a program; the program itself isn't changed.

    A function of its arguments: order of the data, augmentation and dropout follow ``seed``. On a GPU where there is
    one; under ``torchrun`` all processes train one network together, and each gets it.

    Args:
        program: the pruned network; its masks hold throughout.
        options: the recipe.
        data: what to train, validate and watch on.
        teacher: the dense network, for distillation.
        loss: of outputs and labels, minimised.
        metric: of outputs and labels, per sample, larger is better.
        seed: not negative.
        original: the schedule that the dense network was trained with, for schedules that derive from it.
        state: where the training's state is kept; nowhere by default.
        progress: called after every epoch with its record and the network as it is then, on the training's device.

    Raises:
        InputError: the saved state is of another training.
        TrainingDivergedError: the loss or a weight is no longer finite.
        UnsupportedModelError: the network runs at one batch size only, or has nothing to train.
        UsageError: distillation without a teacher, or a loss that gives no scalar.
    """
    processes = Processes.join()
    with _random_numbers(seed, processes):
        training = start_training(
            program, options, data, processes, teacher=teacher, loss=loss, metric=metric, seed=seed, original=original
        )
        file = None
        if state is not None:
            file = StateFile(state.path, _identity(training, teacher), processes, state.every_steps)
        held = file.read() if file is not None and state is not None and state.resume else None
        if held is not None:
            training.restore(held)
        training.run(file, progress)
    put(training.program, training.kept)
    accuracy = trainability_accuracy(training.schedule, [record.test for record in training.curve])
    return RecoveryResult(
        program=_finished(training.program),
        curve=training.curve,
        learning_rates=training.schedule.trace(options.epochs),
        best_epoch=training.best_epoch or options.epochs,
        trainability_accuracy=accuracy,
        trainability_epochs=training.schedule.first_stage_epochs,
        trainability_reason=None
        if accuracy is not None
        else f"the schedule {training.schedule} has no first stage of constant learning rate",
        processes=processes.count,
        resumed=held is not None,
        seconds=training.seconds,
    )


@contextmanager
def _random_numbers(seed: int, processes: Processes) -> Iterator[None]:
    """Torch's random numbers by the seed for a while; every process has its own."""
    with torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []):
        torch.manual_seed(seed if processes.rank == 0 else mixed_seed(seed, processes.rank))
        yield


def _finished(program: Program) -> Program:
    """On the CPU, in plain memory order."""
    program = on_device(program, torch.device("cpu"))
    order_memory(program, torch.contiguous_format)
    return program


def _identity(training: Training, teacher: Program | None) -> Identity:
    """All that the course of a training depends on, by name, as plain values; before its first step."""
    stepper, data = training.stepper, training.data
    program, options = stepper.program, stepper.options
    masks = {f"{name} (mask)": mask for name, mask in program.masks.items()}
    return {
        **asdict(options),
        "learning rates": " ".join(f"{epoch:g}={rate!r}" for epoch, rate in training.schedule.trace(options.epochs)),
        "seed": training.seed,
        "network": fingerprint({**program.tensors(), **masks}),
        "teacher": "none" if teacher is None else fingerprint(teacher.tensors()),
        "data": data.sha256,
        "preprocessing": data.preprocessing_sha256,
        "augmentation": ", ".join(data.augment),
        "loss": _name(stepper.loss),
        "metric": _name(stepper.metric),
        "processes": stepper.processes.count,
        "device": stepper.processes.device.type,
        "torch": str(torch.__version__),
    }


def _name(function: Callable[..., object]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))
