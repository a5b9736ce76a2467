"""Other numbers for the classes: whether labels mean other classes than the network's outputs do."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.calibration.knowledge import Knowledge

#: With more classes, samples are too few to tell which belong together.
_MOST_CLASSES = 2000


@dataclass(frozen=True)
class Relabelling:
    """A change of class numbers: what it is in words, and the labels (N,) with it."""

    words: str
    labels: Tensor


def relabellings(outputs: Tensor, labels: Tensor) -> Iterator[Relabelling]:
    """Changes of class numbers under which a network knows the classes, the simplest first.

    One that is read off the samples is read off one half of them and judged on the other.

    Args:
        outputs: The network's outputs (N, classes), of samples in random order.
        labels: Labels (N,).
    """
    classes, predicted = outputs.shape[1], outputs.argmax(1)
    for words, numbers in _simple(classes):
        relabelled = numbers[labels]
        if Knowledge(outputs, relabelled).is_there():
            yield Relabelling(words, relabelled)
    if classes > _MOST_CLASSES:
        return
    half = len(labels) // 2
    relabelled = torch.empty_like(labels)
    for fitted, judged in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        relabelled[judged] = _matching(predicted[fitted], labels[fitted], classes)[labels[judged]]
    if Knowledge(outputs, relabelled).is_there():
        whole = _matching(predicted, labels, classes)
        moved = [f"{label} as {whole[label]}" for label in torch.unique(labels).tolist() if whole[label] != label]
        told = ", ".join(moved[:5]) + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
        yield Relabelling(f"the classes are in another order ({told})", relabelled)


def _simple(classes: int) -> Iterator[tuple[str, Tensor]]:
    numbers = torch.arange(classes)
    yield "they count from 1, or are off by one: subtract 1", (numbers - 1) % classes
    yield "they are off by one: add 1", (numbers + 1) % classes
    yield "the classes are in reverse order", numbers.flip(0)
    as_text = torch.tensor(sorted(range(classes), key=str))
    if not torch.equal(as_text, numbers):
        yield "one of the two has the classes sorted as text (0, 1, 10, 11, ..., 2), the other as numbers", as_text
        yield (
            "one of the two has the classes sorted as numbers, the other as text (0, 1, 10, 11, ..., 2)",
            as_text.argsort(),
        )


def _matching(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """A number for each label, each once, (classes,): the pairs that come together most often, one after the other.

    Numbers are those of labels that are there: a class that the network takes for one that isn't is a hard class.
    """
    counts = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    counts[:, torch.bincount(labels, minlength=classes) == 0] = 0
    numbers, free = torch.full((classes,), -1), torch.ones(classes, dtype=torch.bool)
    pairs = counts.nonzero()
    for label, number in pairs[counts[tuple(pairs.T)].argsort(descending=True, stable=True)].tolist():
        if numbers[label] < 0 and free[number]:
            numbers[label], free[number] = number, False
    for label in (numbers < 0).nonzero().flatten().tolist():
        number = label if free[label] else int(free.nonzero()[0])
        numbers[label], free[number] = number, False
    return numbers
