"""What a recovery finetune minimises: the loss on the labels, and if wanted the distance to a teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from prunec.runtime.evaluate import call_user_function

#: (outputs, labels) -> scalar tensor.
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Distillation:
    """Learning from the outputs of a dense teacher.

    Attributes:
        teacher: in its inference form.
        temperature: divides both networks' outputs before the softmax.
        weight: share of the divergence in the loss, 0 to 1; the loss on the labels has the rest (Hinton et al., 2015).
    """

    teacher: Program
    temperature: float
    weight: float

    def __call__(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The divergence, times the squared temperature, so that its gradient keeps its size."""
        with torch.no_grad():
            targets = self.teacher(inputs)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise UsageError(
                "recover: distillation needs a network with one output of shape (samples, classes).",
                hint="Leave distill out of the recipe.",
            )
        divergence = kl_div(
            log_softmax(outputs / self.temperature, dim=1),
            log_softmax(targets / self.temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        return self.temperature**2 * divergence


def smoothed(loss: Loss, share: float) -> Loss:
    """Cross-entropy with a share of each label spread over all classes; the loss itself where that is 0.

    Raises:
        UsageError: the loss is not cross-entropy.
    """
    if share == 0:
        return loss
    if loss is not cross_entropy:
        raise UsageError(
            "recover: label_smoothing belongs to cross-entropy, and the project names a loss of its own.",
            hint="Smooth the labels in that loss, or leave label_smoothing out of the recipe.",
        )
    return partial(cross_entropy, label_smoothing=share)


def total_loss(
    loss: Loss, distillation: Distillation | None, inputs: Tensor, outputs: Tensor, labels: Tensor
) -> Tensor:
    """The loss on the labels, mixed with the distance to the teacher where there is one; a scalar.

    Raises:
        UsageError: the loss function fails, or gives something else than a scalar with a gradient.
    """
    value = call_user_function("loss function", loss, outputs, labels)
    if not isinstance(value, Tensor) or value.ndim != 0:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"The loss function gave {shape}; expected a scalar tensor.", hint="Take the mean of it.")
    if not value.requires_grad:
        raise UsageError(
            "The loss function gave a tensor without a gradient: nothing can be learnt from it.",
            hint="Compute it from the outputs with differentiable operators, without detach() or argmax().",
        )
    if distillation is None:
        return value
    return (1 - distillation.weight) * value + distillation.weight * distillation(inputs, outputs)
