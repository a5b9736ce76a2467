"""One step of a recovery finetune: from a batch to changed weights."""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from prunec.compiler.recovery.averaging import WeightAverage
from prunec.compiler.recovery.losses import Distillation, Loss, total_loss
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery.processes import Processes
from prunec.passes.program import Program

#: Precision -> what operators compute in under autocast.
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    distillation: Distillation | None
    options: Recover
    processes: Processes
    average: WeightAverage | None
    scaler: GradScaler = field(init=False)

    def __post_init__(self) -> None:
        # Gradients of half precision vanish unless the loss is scaled up.
        self.scaler = GradScaler(self.processes.device.type, enabled=self.options.precision == "fp16")

    def step(self, inputs: Tensor, labels: Tensor, learning_rate: float) -> float:
        """Train on this process's share of a batch.

        Returns:
            the loss, the mean over the whole batch; where that isn't finite, nothing was changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        loss = self._backward(inputs, labels)
        if math.isfinite(loss):
            self._update()
        return loss

    def _backward(self, inputs: Tensor, labels: Tensor) -> float:
        """Gradients of the mean loss over the whole batch, all processes' shares and all parts together."""
        count, device = len(inputs), self.processes.device
        (whole,) = self.processes.sums(count)
        total = 0.0
        chunks = self.options.accumulate
        parts = list(zip(inputs.chunk(chunks), labels.chunk(chunks), strict=True))
        for number, (images, targets) in enumerate(parts):
            with self._alone(number < len(parts) - 1):
                loss = self._loss(images.to(device), targets.to(device))
                # Parallel processes average their gradients, which must come out as the mean over all samples.
                self.scaler.scale(loss * (len(images) * self.processes.count / whole)).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * len(images)
        (summed,) = self.processes.sums(total)
        return summed / whole

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        if self.options.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            return total_loss(self.loss, self.distillation, inputs, self.network(inputs), labels)

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
