"""One step of a training: from a batch to changed weights."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from prunec.compiler.recovery.attached_hooks import AttachedHooks
from prunec.compiler.recovery.networks import Networks
from prunec.compiler.recovery.objective import Distillation, Objective, label_loss
from prunec.compiler.recovery.optimizers import take_step
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.running_hook import Batch, Moment
from prunec.compiler.recovery.tensors import WeightAverage
from prunec.passes.feeding import BatchInputs, chunked, mapped, on
from prunec.passes.program import Program
from prunec.runtime.evaluate import total_score

#: Precision -> dtype that operators compute in under autocast.
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """Means over a whole batch before its step: the loss with distillation and hooks, and the metric."""

    loss: float
    score: float


@dataclass
class Stepper:
    """Changes the weights of a program, batch by batch.

    Attributes:
        optimizer: The optimizer of the program's parameters, and of those that hooks have given to it.
        objective: Loss and metric; the labels are smoothed already where that is wanted.
        average: Moving average of the weights; None for none.
        scaler: Scales the loss of half precision, whose gradients would vanish.
    """

    networks: Networks
    optimizer: Optimizer
    objective: Objective
    hooks: AttachedHooks
    options: Recover
    processes: Processes
    average: WeightAverage | None
    scaler: GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = GradScaler(self.processes.device.type, enabled=self.options.precision == "fp16")
        self._distillation = Distillation(self.options.distill, self.options.distill_weight)
        attachments = self.hooks.attachments
        self._optimizers: list[Optimizer] = [self.optimizer, *(own for a in attachments for own in a.optimizers)]
        self._input_gradients = any(attachment.input_gradients for attachment in attachments)
        inside = set(self.networks.form.module.parameters())
        # Nobody else averages the gradients of what is trained outside the network's training form.
        self._outside = [parameter for parameter in self.hooks.parameters().values() if parameter not in inside]

    @property
    def program(self) -> Program:
        return self.networks.program

    def step(self, inputs: BatchInputs, labels: Tensor, moment: Moment) -> StepResult:
        """Train on this process's share of a batch; where the loss isn't finite, nothing is changed."""
        for group in self.optimizer.param_groups:
            group["lr"] = moment.learning_rate * group.get("learning_rate_factor", 1.0)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        result = self._backward(inputs, labels, moment)
        if math.isfinite(result.loss):
            self._update(moment)
        return result

    def _backward(self, inputs: BatchInputs, labels: Tensor, moment: Moment) -> StepResult:
        """Gradients of the mean loss over the whole batch, all processes' shares and all parts together."""
        device = self.processes.device
        (whole,) = self.processes.sums(len(labels))
        total, score = 0.0, 0.0
        chunks = self.options.accumulate
        parts = chunked((on(inputs, device), labels.to(device)), chunks)
        for number, (part, targets) in enumerate(parts):
            with self._alone(number < len(parts) - 1):
                outputs, loss = self._forward(part, targets, moment)
                # Parallel processes average their gradients, which must come out as the mean over all samples.
                self.scaler.scale(loss * (len(targets) * self.processes.count / whole)).backward()  # type: ignore[no-untyped-call]
            value = loss.item()
            total += value * len(targets)
            if math.isfinite(value):
                score += total_score(lambda given: given, [(outputs, targets)], self.objective.metric)[0]
        total, score = self.processes.sums(total, score)
        return StepResult(total / whole, score / whole)

    def _forward(self, inputs: BatchInputs, labels: Tensor, moment: Moment) -> tuple[Any, Tensor]:
        """Outputs, without their gradient, and the loss."""
        if self.options.channels_last:
            inputs = mapped(channels_last, inputs)
        if self._input_gradients:
            inputs = mapped(_with_gradient, inputs)
        with self._autocast():
            outputs, inner = self.networks.trained(inputs)
            loss = label_loss(self.objective.loss, outputs, labels)
            targets, teacher_inner = self._taught(inputs)
            if self.options.distill:
                loss = self._distillation.mixed(loss, outputs, targets)
            batch = Batch(moment, inputs, labels, outputs, inner, targets, teacher_inner, self.networks.form)
            loss = self.hooks.loss(batch, loss)
        return pytree.tree_map(_detached, outputs), loss

    def _taught(self, inputs: BatchInputs) -> tuple[Any, dict[str, Tensor]]:
        if self.networks.teacher is None:
            return None, {}
        with torch.no_grad():
            return self.networks.teacher(inputs)

    def _autocast(self) -> AbstractContextManager[None]:
        dtype = _AUTOCAST.get(self.options.precision)
        return nullcontext() if dtype is None else torch.autocast(self.processes.device.type, dtype)

    def _alone(self, alone: bool) -> AbstractContextManager[None]:
        """Whether gradients stay in this process for now: they are averaged once per batch."""
        trained = self.networks.trained.module
        return trained.no_sync() if alone and isinstance(trained, DistributedDataParallel) else nullcontext()

    def _update(self, moment: Moment) -> None:
        stepped = [optimizer for optimizer in self._optimizers if _has_gradient(optimizer)]
        if self.hooks or self.options.clip_norm:
            self.processes.average_gradients(self._outside)
            for optimizer in stepped:
                self.scaler.unscale_(optimizer)
        self.hooks.before_update(moment)
        self._mask_gradients()
        if self.options.clip_norm:
            nn.utils.clip_grad_norm_(self.program.module.parameters(), self.options.clip_norm)
        for optimizer in stepped:
            take_step(self.scaler.step, optimizer, self.options)
        self.scaler.update()
        self.hooks.after_update(moment)
        self.program.apply_masks()
        if self.average is not None:
            self.average.update(self.program)

    def _mask_gradients(self) -> None:
        """Keep weights that are held at zero out of the norm of the gradients and an optimizer's averages."""
        parameters = self.program.parameters()
        for name, mask in self.program.masks.items():
            gradient = parameters[name].grad
            if gradient is not None:
                gradient.masked_fill_(~mask, 0.0)  # a product would leave the infinities of half precision as NaN


def _has_gradient(optimizer: Optimizer) -> bool:
    """Whether an optimizer has something to do: half precision refuses to step without any gradient."""
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def channels_last(inputs: Tensor) -> Tensor:
    """Images (N, C, H, W) with their channels last in memory; other tensors as they are."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def _with_gradient(inputs: Tensor) -> Tensor:
    return inputs.detach().requires_grad_() if inputs.is_floating_point() else inputs


def _detached(leaf: object) -> object:
    return leaf.detach().float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
