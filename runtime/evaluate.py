"""Accuracy over an iterable of batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.errors import InputError
from prunec.passes.feeding import BatchInputs, arranged, torch_dtype, typed
from prunec.passes.interruption import stoppable
from prunec.passes.network_inputs import NetworkInput
from prunec.passes.outputs import OutputForm, only_tensor
from prunec.passes.user_calls import call_user_code, defined_at

#: Samples per batch of an evaluation; larger ones fall out of a CPU's caches.
EVALUATION_BATCH = 500
#: Advice where a loss or a metric fails.
OBJECTIVE_HINT = "It is called with the network's outputs and the labels of a batch."
#: (outputs, labels) -> score of each sample, (N,), 0 to 1.
Metric = Callable[[Any, Tensor], Tensor]
#: Batches of inputs, in any form that data give them in, and labels.
Batches = Iterable[tuple[BatchInputs, Tensor]]
#: Function from arrays in the order of a model's inputs to arrays in the order of its outputs.
Predict = Callable[..., Sequence[NDArray[Any]]]


def predictor(session: Predict, inputs: Sequence[NetworkInput], outputs: OutputForm) -> Callable[[BatchInputs], Any]:
    """An engine of a network with these inputs as a function from a batch to outputs in the network's own form."""

    def predict(batch: BatchInputs) -> Any:
        tensors = arranged(inputs, batch)
        given = [typed(tensor, torch_dtype(each)).numpy() for each, tensor in zip(inputs, tensors, strict=True)]
        return outputs.of_arrays(session(*given))

    return predict


def classes_of(outputs: Any) -> Tensor:
    """The outputs (samples, classes) of a classifier: the one tensor that it gives, in whatever structure.

    Raises:
        TypeError: It gives several tensors, or none.
    """
    if (scores := only_tensor(outputs)) is None:
        raise TypeError("the network gives several outputs, or none")
    return scores


def top1(outputs: Any, labels: Tensor) -> Tensor:
    """Whether the label's is the largest of the outputs (N, classes): 1 or 0, float32 (N,)."""
    return (classes_of(outputs).argmax(1) == labels).float()


def top5(outputs: Any, labels: Tensor) -> Tensor:
    """Whether the label's is among the 5 largest of the outputs (N, classes): 1 or 0, float32 (N,)."""
    scores = classes_of(outputs)
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).float()


def evaluate(predict: Callable[[Any], Any], batches: Batches, metric: Metric = top1) -> float:
    """Mean score over all samples of some batches, which are pairs of inputs and labels.

    Raises:
        InputError: There is no sample, or the cause is one of `sample_scores`.
    """
    total, count = total_score(predict, stoppable(batches), metric)
    if count == 0:
        raise InputError("There is no sample to evaluate.", hint="Check the test data.")
    return total / count


def total_score(predict: Callable[[Any], Any], batches: Batches, metric: Metric) -> tuple[float, int]:
    """Sum of the scores of all samples, and their number, which may be 0; for errors see `sample_scores`."""
    total, count = 0.0, 0
    for scores in sample_scores(predict, batches, metric):
        total += float(scores.double().sum())
        count += len(scores)
    return total, count


@torch.no_grad()
def sample_scores(predict: Callable[[Any], Any], batches: Batches, metric: Metric) -> Iterator[Tensor]:
    """The score of each sample, (N,) for every batch, 0 to 1.

    Raises:
        InputError: The metric fails, or returns something else than a finite score from 0 to 1 for each sample.
    """
    for inputs, labels in batches:
        scores = call_user_code("metric", metric, predict(inputs), labels, hint=OBJECTIVE_HINT)
        _check_scores(scores, len(labels), metric)
        yield scores


def _check_scores(scores: object, count: int, metric: Metric) -> None:
    def refused(gave: str, hint: str) -> InputError:
        return InputError(f"The metric{defined_at(metric)} gave {gave}", hint=hint)

    if not isinstance(scores, Tensor) or scores.shape != (count,):
        got = f"a tensor of shape {list(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise refused(
            f"{got} for {count} samples; expected a score of each, shape [{count}].",
            "Don't take the mean: the samples of all batches are averaged together.",
        )
    if not torch.isfinite(scores).all():
        raise refused("scores that are not finite.", "Check the network's outputs.")
    if scores.min() < 0 or scores.max() > 1:
        raise refused(
            f"scores from {scores.min().item():g} to {scores.max().item():g}; expected 0 to 1.",
            "Scale it: 1 is a perfect sample.",
        )
