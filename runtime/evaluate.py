"""Accuracy over an iterable of batches."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from prunec.passes.errors import InputError

#: (outputs, labels) -> score of each sample, (N,), 0 to 1.
Metric = Callable[[Tensor, Tensor], Tensor]


def top1(outputs: Tensor, labels: Tensor) -> Tensor:
    """1 where the largest of the outputs (N, classes) is the label's, float (N,)."""
    return (outputs.argmax(1) == labels).float()


def top5(outputs: Tensor, labels: Tensor) -> Tensor:
    """1 where the label's output is among the 5 largest of (N, classes), float (N,)."""
    best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).float()


@torch.no_grad()
def evaluate(
    predict: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], metric: Metric = top1
) -> float:
    """Mean score over all samples.

    Args:
        predict: inputs -> outputs.
        batches: (inputs, labels).
        metric: score of each sample.

    Raises:
        InputError: there is no sample, or a score is not finite.
    """
    total, count = 0.0, 0
    for inputs, labels in batches:
        scores = metric(predict(inputs), labels)
        if not torch.isfinite(scores).all():
            raise InputError("The metric gives scores that are not finite.", hint="Check the network's outputs.")
        total += float(scores.double().sum())
        count += len(labels)
    if count == 0:
        raise InputError("There is no sample to evaluate.", hint="Check the test data.")
    return total / count
