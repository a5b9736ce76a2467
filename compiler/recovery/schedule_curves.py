"""Learning rates over a training run, as exact and comparable objects: their traces are what runs are compared by."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Schedule(ABC):
    """A learning rate for every point in time of a training run.

    Attributes:
        text: The text that it was parsed from, without blanks; ``str()`` gives it back.
        epochs: Length of the run; None where the schedule doesn't depend on it and it wasn't given.
    """

    text: str = field(compare=False)
    epochs: int | None

    def __str__(self) -> str:
        return self.text

    @abstractmethod
    def learning_rate(self, epoch: float) -> float:
        """Learning rate at a time, in epochs since the start; fractions are points within an epoch."""

    @property
    def first_stage_epochs(self) -> int | None:
        """Whole epochs of the first stage of constant learning rate; None where there is none or its end isn't known.

        Trainability accuracy is the mean test accuracy over these epochs.
        """
        return None

    @abstractmethod
    def trace(self, epochs: int, steps_per_epoch: int | None = None) -> list[list[float]]:
        """Pairs [epoch, learning rate] over a run.

        Args:
            epochs: Length of the run.
            steps_per_epoch: Number of pairs for each epoch in which the learning rate changes from step to step, 1 by
                default. Constant stages always give one pair each.
        """


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """Stages of constant learning rate.

    Attributes:
        stages: Pairs (first epoch, learning rate) in order, the first at 0.
    """

    stages: tuple[tuple[float, float], ...]

    def learning_rate(self, epoch: float) -> float:
        return self.stages[max(0, bisect_right(self.stages, (epoch, math.inf)) - 1)][1]

    @property
    def first_stage_epochs(self) -> int | None:
        end = self.stages[1][0] if len(self.stages) > 1 else self.epochs
        return math.floor(end) or None if end is not None else None

    def trace(self, epochs: int, steps_per_epoch: int | None = None) -> list[list[float]]:
        return [[start, rate] for start, rate in self.stages if start < epochs]


@dataclass(frozen=True)
class SmoothSchedule(Schedule):
    """A learning rate that changes from step to step; it has no first stage of constant learning rate."""

    epochs: int

    def trace(self, epochs: int, steps_per_epoch: int | None = None) -> list[list[float]]:
        steps = steps_per_epoch or 1
        return [[step / steps, self.learning_rate(step / steps)] for step in range(epochs * steps)]


@dataclass(frozen=True)
class CosineSchedule(SmoothSchedule):
    """Half a cosine from ``peak`` at the start down to ``minimum`` at the end of the run."""

    peak: float
    minimum: float

    def learning_rate(self, epoch: float) -> float:
        return half_cosine(self.peak, self.minimum, epoch / self.epochs)


@dataclass(frozen=True)
class ScaledRestart(SmoothSchedule):
    """Scaled learning-rate restarting (Le and Hua, "Network Pruning That Matters?", ICLR 2021).

    It warms up over a tenth of the run, by half a cosine from ``low`` to ``high``. Then it is ``high``, from the share
    ``first`` of the remaining epochs on a tenth of that, and from ``second`` on a hundredth, both in whole epochs.
    """

    high: float
    low: float
    first: float
    second: float

    def learning_rate(self, epoch: float) -> float:
        warm_up = self.epochs / 10
        if epoch < warm_up:
            return half_cosine(self.low, self.high, epoch / warm_up)
        drops = [int(share * (self.epochs - warm_up)) for share in (self.first, self.second)]
        return self.high / float(10 ** sum(epoch - warm_up >= drop for drop in drops))


@dataclass(frozen=True)
class OneCycle(SmoothSchedule):
    """Cyclic restarting in one cycle (Smith and Topin 2019, as PyTorch's OneCycleLR anneals it by cosines).

    It rises from a hundredth of ``peak`` to all of it over a tenth of the run, and falls to a ten-thousandth.
    """

    peak: float

    def learning_rate(self, epoch: float) -> float:
        rise = self.epochs / 10
        if epoch < rise:
            return half_cosine(self.peak / 100, self.peak, epoch / rise)
        return half_cosine(self.peak, self.peak / 10_000, (epoch - rise) / (self.epochs - rise))


@dataclass(frozen=True)
class Rewound(SmoothSchedule):
    """The last epochs of another smooth schedule."""

    original: Schedule
    start: int

    def learning_rate(self, epoch: float) -> float:
        return self.original.learning_rate(self.start + epoch)


@dataclass(frozen=True)
class WarmedUp(SmoothSchedule):
    """Another schedule that is reached over some epochs, linearly from 0 (Goyal et al., 2017)."""

    base: Schedule
    warmup: float

    def learning_rate(self, epoch: float) -> float:
        return self.base.learning_rate(epoch) * min(epoch / self.warmup, 1.0)


def half_cosine(start: float, end: float, progress: float) -> float:
    """A curve from ``start`` at progress 0 to ``end`` at 1, which stays at these values beyond."""
    progress = min(max(progress, 0.0), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
