"""Whether the outputs of a classifier show that it knows the classes of some samples, or that it doesn't."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

#: Share of what a network that says one class only leaves wrong, which one that knows the classes gets right.
_RIGHT = 0.5
#: Share of the labels' entropy that its probabilities take away. Networks that have hardly learned are right about many
#: samples of few classes under some order of them, by small differences or by large ones that mean nothing: they reach
#: 0.2, and trained ones 0.4.
_INFORMATION = 0.3
#: Temperatures that probabilities are softened by: a network may be too sure of what it has seen.
_TEMPERATURES = tuple(2 ** (step / 2) for step in range(15))
#: Mean probability of the predicted classes from which on a network at chance is one that knows other labels.
_CONFIDENT = 0.7
#: Share of the labels' effective number of classes that it gives as answers then.
_AS_MANY = 0.8
#: Standard errors above chance that are still chance.
_STILL_CHANCE = 2.0


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Outputs (N, classes) of a classifier, logits or probabilities, and labels (N,)."""

    outputs: Tensor
    labels: Tensor

    @cached_property
    def predicted(self) -> Tensor:
        """Predicted classes (N,)."""
        return self.outputs.argmax(1)

    @cached_property
    def accuracy(self) -> float:
        """Share of the samples that are right."""
        return float((self.predicted == self.labels).double().mean())

    @cached_property
    def chance(self) -> float:
        """Accuracy of a network that says the commonest class only."""
        return float(shares(self.labels).max())

    @cached_property
    def sureness(self) -> float:
        """Mean probability that the network gives its answers."""
        return float(self._log_probabilities.max(1).values.exp().mean())

    def is_there(self) -> bool:
        """Whether the network knows these classes."""
        if self.accuracy < self.chance + _RIGHT * (1 - self.chance):
            return False
        entropy = _entropy(self.labels)
        return entropy > 0 and self._loss() <= (1 - _INFORMATION) * entropy

    def is_missing(self) -> bool:
        """Whether the network is right no more often than by chance, over all samples and in the mean over classes."""
        count, present = len(self.labels), torch.bincount(self.labels)
        present = present[present > 0].double()
        if len(present) < 2:
            return False
        by_chance = 1 / len(present)
        error = math.sqrt(self.chance * (1 - self.chance) / count)
        error_of_mean = math.sqrt(by_chance * (1 - by_chance) * float((1 / present).sum())) / len(present)
        mean = by_class((self.predicted == self.labels).double(), self.labels)
        is_by_chance = self.accuracy <= self.chance + _STILL_CHANCE * error
        return is_by_chance and mean <= by_chance + _STILL_CHANCE * error_of_mean

    def is_of_others(self) -> bool:
        """Whether the network is right by chance only, and yet is sure and gives as many answers as there are classes.

        One that has hardly learned and is given large inputs is sure, too, but says one class or two.
        """
        if self.sureness < max(_CONFIDENT, self.chance + 0.3) or not self.is_missing():
            return False
        return math.exp(_entropy(self.predicted) - _entropy(self.labels)) >= _AS_MANY

    def _loss(self) -> float:
        """Least cross-entropy at any of the temperatures (Guo et al., On Calibration of Modern Neural Networks)."""
        scaled = [(self._log_probabilities / temperature).log_softmax(1) for temperature in _TEMPERATURES]
        return min(float(torch.nn.functional.nll_loss(each, self.labels)) for each in scaled)

    @cached_property
    def _log_probabilities(self) -> Tensor:
        outputs = self.outputs.double()
        if bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-3).all()):
            return outputs.clamp_min(1e-12).log()
        return outputs.log_softmax(1)


def shares(classes: Tensor) -> Tensor:
    """The share of each class, float64, of class numbers (N,)."""
    return torch.bincount(classes).double() / len(classes)


def by_class(values: Tensor, labels: Tensor) -> float:
    """Mean over the classes that are there of the mean of values (N,), so that rare classes count as much."""
    counts, sums = torch.bincount(labels), torch.bincount(labels, values.double())
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def _entropy(classes: Tensor) -> float:
    """Entropy of class numbers (N,) in nats."""
    return float(torch.special.entr(shares(classes)).sum())
