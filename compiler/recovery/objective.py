"""The loss and the metric of a training: cross-entropy and top-1, a teacher's outputs, or the user's own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.nn.functional import kl_div, log_softmax

from prunec.passes.errors import InputError, PrunecError, UsageError
from prunec.passes.outputs import only_tensor
from prunec.passes.user_calls import call_user_code, defined_at
from prunec.runtime.evaluate import OBJECTIVE_HINT, Metric, classes_of, top1

#: (outputs, labels) -> scalar tensor.
Loss = Callable[[Any, Tensor], Tensor]


def cross_entropy(outputs: Any, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the one tensor that a classifier gives, (samples, classes), in whatever structure."""
    return functional.cross_entropy(classes_of(outputs), labels, label_smoothing=label_smoothing)


@dataclass(frozen=True)
class Objective:
    """Loss and metric, with the names under which the report speaks of them.

    Attributes:
        metric: Function (outputs, labels) -> score of each sample (N,), 0 to 1.
        loss_name: "cross-entropy", or ``module:callable``.
        metric_name: "top1", or ``module:callable``.
    """

    loss: Loss = cross_entropy
    metric: Metric = top1
    loss_name: str = "cross-entropy"
    metric_name: str = "top1"


#: Cross-entropy and top-1 accuracy.
DEFAULT_OBJECTIVE = Objective()


@dataclass(frozen=True)
class Distillation:
    """Learning from the outputs of a teacher (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).

    Attributes:
        temperature: Divides both networks' outputs before the softmax.
        weight: Share of the divergence in the loss, 0 to 1; the loss on the labels has the rest.
    """

    temperature: float
    weight: float

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The divergence of the outputs from the teacher's, both (N, classes); a scalar.

        It is multiplied by the squared temperature, so that its gradient keeps its size.

        Raises:
            UsageError: The network has other outputs.
        """
        scores = [only_tensor(outputs), only_tensor(targets)]
        if any(values is None or values.ndim != 2 for values in scores):
            raise UsageError(
                "recover: distillation needs a network with one output of shape (samples, classes).",
                hint="Leave distill out of the recipe, or deploy one output: [model] outputs in prunec.toml.",
            )
        learnt, taught = (log_softmax(values / self.temperature, dim=1) for values in scores if values is not None)
        return self.temperature**2 * kl_div(learnt, taught, log_target=True, reduction="batchmean")

    def mixed(self, loss: Tensor, outputs: Any, targets: Any) -> Tensor:
        """The loss on the labels, mixed with the divergence by its weight."""
        return (1 - self.weight) * loss + self.weight * self(outputs, targets)


def smoothed(loss: Loss, share: float) -> Loss:
    """Cross-entropy with a share of each label spread over all classes; the loss itself where that is 0.

    Raises:
        UsageError: The loss is not cross-entropy.
    """
    if share == 0:
        return loss
    if loss is not cross_entropy:
        raise UsageError(
            "recover: label_smoothing belongs to cross-entropy, and the project names a loss of its own.",
            hint="Smooth the labels in that loss, or leave label_smoothing out of the recipe.",
        )
    return partial(cross_entropy, label_smoothing=share)


def label_loss(loss: Loss, outputs: Any, labels: Tensor) -> Tensor:
    """The loss on the labels, a scalar.

    Raises:
        InputError: The loss function fails, or gives something else than a scalar with a gradient.
    """
    value = call_user_code("loss function", loss, outputs, labels, hint=OBJECTIVE_HINT)
    check_loss("loss function", value, InputError, code=loss)
    return value  # type: ignore[no-any-return]


def check_loss(what: str, value: object, error: type[PrunecError] = UsageError, code: object = None) -> None:
    """Check that something gave a scalar tensor with a gradient.

    Args:
        what: What gave the value, in words.
        value: The value.
        error: The kind of error that is raised.
        code: The user's function that gave it, whose place the error tells.

    Raises:
        PrunecError: It gave something else.
    """
    if not isinstance(value, Tensor) or value.ndim != 0:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise error(
            f"The {what}{defined_at(code)} gave {shape}; expected a scalar tensor.", hint="Take the mean of it."
        )
    if not value.requires_grad:
        raise error(
            f"The {what}{defined_at(code)} gave a tensor without a gradient: nothing can be learnt from it.",
            hint="Compute it from the outputs with differentiable operators, without detach() or argmax().",
        )
