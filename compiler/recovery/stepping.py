"""One step of a recovery finetune: from a batch to changed weights."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils import _pytree as pytree

from prunec.compiler.recovery.averaging import WeightAverage
from prunec.compiler.recovery.losses import Distillation, Loss, total_loss
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery.processes import Processes
from prunec.passes.program import Program
from prunec.runtime.evaluate import Metric, total_score

#: Precision -> what operators compute in under autocast.
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """What a step found, before it changed the weights: means over the whole batch.

    Attributes:
        loss: distillation included.
        score: of the metric, on outputs in training form and augmented inputs.
    """

    loss: float
    score: float


@dataclass
class Stepper:
    """Changes the weights of a program, batch by batch.

    Attributes:
        program: whose tensors are changed; masks are those of it.
        network: its training form over the same tensors, perhaps compiled, perhaps one of several that work together.
        average: of the weights, moved along; None for none.
    """

    program: Program
    network: nn.Module
    optimizer: SGD
    loss: Loss
    metric: Metric
    distillation: Distillation | None
    options: Recover
    processes: Processes
    average: WeightAverage | None
    scaler: GradScaler = field(init=False)

    def __post_init__(self) -> None:
        # Gradients of half precision vanish unless the loss is scaled up.
        self.scaler = GradScaler(self.processes.device.type, enabled=self.options.precision == "fp16")

    def step(self, inputs: Tensor, labels: Tensor, learning_rate: float) -> StepResult:
        """Train on this process's share of a batch; where the loss isn't finite, nothing is changed."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        result = self._backward(inputs, labels)
        if math.isfinite(result.loss):
            self._update()
        return result

    def _backward(self, inputs: Tensor, labels: Tensor) -> StepResult:
        """Gradients of the mean loss over the whole batch, all processes' shares and all parts together."""
        device = self.processes.device
        (whole,) = self.processes.sums(len(inputs))
        total, score = 0.0, 0.0
        chunks = self.options.accumulate
        parts = list(zip(inputs.to(device).chunk(chunks), labels.to(device).chunk(chunks), strict=True))
        for number, (images, targets) in enumerate(parts):
            with self._alone(number < len(parts) - 1):
                outputs, loss = self._forward(images, targets)
                # Parallel processes average their gradients, which must come out as the mean over all samples.
                self.scaler.scale(loss * (len(images) * self.processes.count / whole)).backward()  # type: ignore[no-untyped-call]
            value = loss.item()
            total += value * len(images)
            if math.isfinite(value):
                score += total_score(lambda given: given, [(outputs, targets)], self.metric)[0]
        total, score = self.processes.sums(total, score)
        return StepResult(total / whole, score / whole)

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, without their gradient, and the loss."""
        if self.options.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            outputs = self.network(inputs)
            loss = total_loss(self.loss, self.distillation, inputs, outputs, labels)
        return pytree.tree_map(_detached, outputs), loss

    def _autocast(self) -> AbstractContextManager[None]:
        dtype = _AUTOCAST.get(self.options.precision)
        return nullcontext() if dtype is None else torch.autocast(self.processes.device.type, dtype)

    def _alone(self, alone: bool) -> AbstractContextManager[None]:
        """Whether gradients stay in this process for now: they are averaged once per batch."""
        if alone and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def _update(self) -> None:
        if self.options.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.program.module.parameters(), self.options.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.program.apply_masks()
        if self.average is not None:
            self.average.update(self.program)


def _detached(leaf: object) -> object:
    return leaf.detach().float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
