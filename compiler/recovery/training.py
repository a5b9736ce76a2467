"""One recovery finetune under way: its steps and epochs."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import SGD

from prunec.calibration.data import Data
from prunec.calibration.splits import steps_per_epoch
from prunec.compiler.recovery.losses import Distillation, Loss, total_loss
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery.schedules import Schedule, parse_schedule
from prunec.passes.errors import TrainingDivergedError, UnsupportedModelError, UsageError
from prunec.passes.program import Program
from prunec.runtime.evaluate import Metric, evaluate

#: Samples per batch of an evaluation; larger ones fall out of a CPU's caches.
_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a learning curve.

    Attributes:
        epoch: counted from 1.
        learning_rate: at the start of the epoch.
        train_loss: mean over its steps, distillation included.
        validation: metric on the validation data after it, 0 to 1.
        test: metric on the test data after it; watched only, nothing is chosen on it.
        seconds: it took, evaluation included.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation: float
    test: float
    seconds: float


@dataclass
class Training:
    """A program under training, with all that its epochs need.

    Attributes:
        program: changed by every epoch.
        seed: of the order of the data and of their augmentation.
    """

    program: Program
    schedule: Schedule
    optimizer: SGD
    distillation: Distillation | None
    loss: Loss
    data: Data
    batch_size: int
    epochs: int
    seed: int

    @classmethod
    def start(
        cls,
        program: Program,
        options: Recover,
        data: Data,
        *,
        teacher: Program | None,
        loss: Loss,
        seed: int,
        original: Schedule | None = None,
    ) -> "Training":
        """Training of a copy of a program.

        Raises:
            UnsupportedModelError: the network runs at one batch size only, or has nothing to train.
            UsageError: distillation without a teacher, or a schedule that derives from an original that isn't known.
        """
        program = program.clone()
        return cls(
            program=program,
            schedule=parse_schedule(options.schedule, epochs=options.epochs, original=original),
            optimizer=_optimizer(program, options),
            distillation=_distillation(options, teacher),
            loss=loss,
            data=data,
            batch_size=options.batch_size,
            epochs=options.epochs,
            seed=seed,
        )

    def run_epoch(self, epoch: int, metric: Metric) -> EpochRecord:
        """Train one epoch, counted from 0, and evaluate.

        Raises:
            TrainingDivergedError: the loss or a weight is no longer finite.
        """
        started = time.perf_counter()
        self.program.train()
        batches = self.data.train.batches(self.batch_size, epoch=epoch, seed=self.seed)
        losses = [self._step(epoch, step, *batch) for step, batch in enumerate(batches)]
        self.program.eval()
        self._check_weights(epoch)
        return EpochRecord(
            epoch=epoch + 1,
            learning_rate=self.schedule.learning_rate(epoch),
            train_loss=math.fsum(losses) / len(losses),
            validation=evaluate(self.program, self.data.validation.batches(_EVALUATION_BATCH), metric),
            test=evaluate(self.program, self.data.test.batches(_EVALUATION_BATCH), metric),
            seconds=time.perf_counter() - started,
        )

    @property
    def _steps(self) -> int:
        return steps_per_epoch(self.data.train, self.batch_size)

    def _step(self, epoch: int, step: int, inputs: Tensor, labels: Tensor) -> float:
        learning_rate = self.schedule.learning_rate(epoch + step / self._steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = total_loss(self.loss, self.distillation, inputs, self.program(inputs), labels)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}", epoch, step)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.program.apply_masks()
        return value

    def _check_weights(self, epoch: int) -> None:
        for name, tensor in self.program.tensors().items():
            if not torch.isfinite(tensor).all():
                raise self._diverged(f"{name} holds values that are not finite", epoch, self._steps - 1)

    def _diverged(self, what: str, epoch: int, step: int) -> TrainingDivergedError:
        rate = self.schedule.learning_rate(epoch + step / self._steps)
        return TrainingDivergedError(
            f"The recovery finetune diverged: {what} in epoch {epoch + 1} of {self.epochs}, step {step + 1} "
            f"of {self._steps}, at learning rate {rate:.3g} (schedule {self.schedule}).",
            hint=f"Try a lower learning rate, such as {rate / 10:.1g}, and check that the data are "
            "normalised as the network expects.",
        )


def _distillation(options: Recover, teacher: Program | None) -> Distillation | None:
    if options.distill == 0:
        return None
    if teacher is None:
        raise UsageError(
            "recover: distillation needs the dense network as its teacher, and none was given.",
            hint="Pass teacher=..., or leave distill out of the recipe.",
        )
    # A teacher in training form would drop activations and update its own batch-norm statistics.
    teacher = teacher.clone().eval() if teacher.training else teacher
    return Distillation(teacher, options.distill, options.distill_weight)


def _optimizer(program: Program, options: Recover) -> SGD:
    if not program.batch_is_dynamic:
        raise UnsupportedModelError(
            f"The network runs at a batch of {program.example_inputs[0].shape[0]} only, so that it can't be "
            "retrained on other batches.",
            hint="Rewrite what fixes its batch (often a view() with a number in it), or leave recover out.",
        )
    parameters = [p for p in program.module.parameters() if p.requires_grad]
    if not parameters:
        raise UnsupportedModelError("The network has no parameters that require a gradient: nothing can be trained.")
    return SGD(
        parameters,
        lr=1.0,  # set at every step
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
    )
