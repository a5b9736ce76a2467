"""Recovery: retraining a pruned network until its accuracy is back."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.calibration.data import Data
from prunec.compiler.recovery.losses import Loss
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery.schedules import Schedule
from prunec.compiler.recovery.trainability import trainability_accuracy
from prunec.compiler.recovery.training import EpochRecord, Training
from prunec.passes.program import Program
from prunec.runtime.evaluate import Metric

__all__ = ["EpochRecord", "Loss", "Recover", "RecoveryResult", "recover"]


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
        seconds: of the whole retraining.
    """

    program: Program
    curve: list[EpochRecord]
    learning_rates: list[list[float]]
    best_epoch: int
    trainability_accuracy: float | None
    trainability_epochs: int | None
    trainability_reason: str | None
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
    progress: Callable[[EpochRecord], None] | None = None,
) -> RecoveryResult:
    """Retrain a copy of a program; the program itself isn't changed.

    A function of its arguments: order of the data, augmentation and dropout follow ``seed``.

    Args:
        program: the pruned network; its masks hold throughout.
        options: the recipe.
        data: what to train, validate and watch on.
        teacher: the dense network, for distillation.
        loss: of outputs and labels, minimised.
        metric: of outputs and labels, per sample, larger is better.
        seed: not negative.
        original: the schedule that the dense network was trained with, for schedules that derive from it.
        progress: called after every epoch.

    Raises:
        TrainingDivergedError: the loss or a weight is no longer finite.
        UnsupportedModelError: the network runs at one batch size only, or has nothing to train.
        UsageError: distillation without a teacher, or a loss that gives no scalar.
    """
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        training = Training.start(program, options, data, teacher=teacher, loss=loss, seed=seed, original=original)
        curve: list[EpochRecord] = []
        kept: dict[str, Tensor] = {}
        best_epoch = options.epochs
        for epoch in range(options.epochs):
            curve.append(training.run_epoch(epoch, metric))
            if options.keep == "best" and curve[-1].validation >= max(record.validation for record in curve):
                best_epoch, kept = epoch + 1, _snapshot(training.program)
            if progress is not None:
                progress(curve[-1])
    _restore(training.program, kept)
    accuracy = trainability_accuracy(training.schedule, [record.test for record in curve])
    return RecoveryResult(
        program=training.program.eval(),
        curve=curve,
        learning_rates=training.schedule.trace(options.epochs),
        best_epoch=best_epoch,
        trainability_accuracy=accuracy,
        trainability_epochs=training.schedule.first_stage_epochs,
        trainability_reason=None
        if accuracy is not None
        else f"the schedule {training.schedule} has no first stage of constant learning rate",
        seconds=time.perf_counter() - started,
    )


def _snapshot(program: Program) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in program.tensors().items()}


@torch.no_grad()
def _restore(program: Program, tensors: dict[str, Tensor]) -> None:
    current = program.tensors()
    for name, tensor in tensors.items():
        current[name].copy_(tensor)
