"""The metric of a network sample by sample, and differences between two networks on the same samples.

Two networks that one comes from the other agree on most samples, so that the difference of their accuracies is known
much better than either accuracy, if it is taken sample by sample (a paired comparison).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import NormalDist
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.calibration.data import Data
from prunec.calibration.splits import Split
from prunec.passes.devices import on_device
from prunec.passes.feeding import BatchInputs, on, runner
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.runtime.evaluate import EVALUATION_BATCH, Metric, sample_scores

#: Largest number of training samples that a network is measured on.
TRAINING_SAMPLES = 2000
#: Number of samples that are taken side by side from the training data; so many places hold all classes.
_CHUNK = 50


@dataclass(frozen=True)
class Estimate:
    """A difference of accuracies in percentage points, with its standard error."""

    points: float
    standard_error: float

    @classmethod
    def paired(cls, after: NDArray[np.float64], before: NDArray[np.float64]) -> Self:
        """The mean difference of two networks' scores on the same samples, both (N,)."""
        differences = after - before
        # A sample of each sign beyond those seen: where all samples agree, the error isn't 0.
        count = len(differences) + 2
        variance = float((differences**2).sum() + 2) / count - (float(differences.sum()) / count) ** 2
        return cls(100 * float(differences.mean()), 100 * math.sqrt(variance / len(differences)))

    def scaled(self, factor: float) -> "Estimate":
        """This many times the difference."""
        return Estimate(factor * self.points, abs(factor) * self.standard_error)

    def combined(self, other: "Estimate") -> "Estimate":
        """The mean of two estimates of one difference, each weighted by the inverse of its variance."""
        first, second = self.standard_error**-2, other.standard_error**-2
        return Estimate((first * self.points + second * other.points) / (first + second), (first + second) ** -0.5)

    @property
    def margin(self) -> float:
        """Half the width of its 95 % interval, in points."""
        return NormalDist().inv_cdf(0.975) * self.standard_error

    def is_above(self, points: float) -> bool:
        """Whether it is larger, by two standard errors."""
        return self.points - 2 * self.standard_error > points

    def is_below(self, points: float) -> bool:
        """Whether it is smaller, by two standard errors."""
        return self.points + 2 * self.standard_error < points


@dataclass(frozen=True)
class Scores:
    """The scores of a network in inference form, 0 to 1, on a fixed sample of the training data, not augmented, and on
    the validation data; both float64 (N,).
    """

    train: NDArray[np.float64]
    validation: NDArray[np.float64]

    @classmethod
    def of(cls, program: Program, data: Data, metric: Metric, device: torch.device) -> Self:
        """Measure a program, which isn't changed."""
        network = runner(on_device(program.inference(), device))

        def scored(batches: Iterator[tuple[BatchInputs, Tensor]]) -> NDArray[np.float64]:
            moved = ((on(inputs, device), labels.to(device)) for inputs, labels in stoppable(batches))
            return torch.cat([scores.double().cpu() for scores in sample_scores(network, moved, metric)]).numpy()

        return cls(scored(training_sample(data.train)), scored(data.validation.batches(EVALUATION_BATCH)))


def training_sample(train: Split) -> Iterator[tuple[BatchInputs, Tensor]]:
    """At most `TRAINING_SAMPLES` of the training data, not augmented, from places that are spread over all of it."""
    if len(train) <= TRAINING_SAMPLES:
        yield from train.batches(EVALUATION_BATCH)
        return
    places, wanted = len(train) // _CHUNK, TRAINING_SAMPLES // _CHUNK
    for number in range(wanted):
        yield from islice(train.batches(_CHUNK, first=number * places // wanted), 1)


#: Measures a program: `Scores.of` without its other arguments.
Measure = Callable[[Program], Scores]
