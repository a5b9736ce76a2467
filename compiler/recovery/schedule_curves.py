"""Learning rates over a training run, as exact and comparable objects: their traces are what runs are compared by."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Schedule(ABC):
    """A learning rate for every point in time of a training run.

    Attributes:
        text: what it was parsed from, without blanks; ``str()`` gives it back.
        epochs: length of the run, None where the schedule doesn't depend on it and it wasn't given.
    """

    text: str = field(compare=False)
    epochs: int | None

    def __str__(self) -> str:
        return self.text

    @abstractmethod
    def learning_rate(self, epoch: float) -> float:
        """Learning rate at a time, in epochs since the start; fractions are points within an epoch."""

    @property
    @abstractmethod
    def first_stage_epochs(self) -> int | None:
        """Whole epochs of the first stage of constant learning rate; None where there is none or it is open.

        Trainability accuracy is the mean test accuracy over these epochs.
        """

    @abstractmethod
    def trace(self, epochs: int, steps_per_epoch: int | None = None) -> list[list[float]]:
        """Pairs [epoch, learning rate] over a run.

        Args:
            epochs: length of the run.
            steps_per_epoch: gives one pair per step where the learning rate changes from step to step,
                instead of one per epoch. Constant stages always give one pair each.
        """


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """Stages of constant learning rate.

    Attributes:
        stages: (first epoch, learning rate), in order, the first at 0.
    """

    stages: tuple[tuple[float, float], ...]

    def learning_rate(self, epoch: float) -> float:
        """See `Schedule.learning_rate`."""
        return self.stages[max(0, bisect_right(self.stages, (epoch, math.inf)) - 1)][1]

    @property
    def first_stage_epochs(self) -> int | None:
        """See `Schedule.first_stage_epochs`."""
        end = self.stages[1][0] if len(self.stages) > 1 else self.epochs
        return math.floor(end) or None if end is not None else None

    def trace(self, epochs: int, steps_per_epoch: int | None = None) -> list[list[float]]:
        """See `Schedule.trace`."""
        return [[start, rate] for start, rate in self.stages if start < epochs]


@dataclass(frozen=True)
class SmoothSchedule(Schedule):
    """A learning rate that changes from step to step; it has no first stage of constant learning rate."""

    epochs: int

    @property
    def first_stage_epochs(self) -> int | None:
        """See `Schedule.first_stage_epochs`."""
        return None

    def trace(self, epochs: int, steps_per_epoch: int | None = None) -> list[list[float]]:
        """See `Schedule.trace`."""
        steps = steps_per_epoch or 1
        times = [step / steps for step in range(epochs * steps)]
        return [[time, self.learning_rate(time)] for time in times]


@dataclass(frozen=True)
class CosineSchedule(SmoothSchedule):
    """Half a cosine from ``peak`` at the start down to ``minimum`` at the end of the run."""

    peak: float
    minimum: float

    def learning_rate(self, epoch: float) -> float:
        """See `Schedule.learning_rate`."""
        return half_cosine(self.peak, self.minimum, epoch / self.epochs)


@dataclass(frozen=True)
class ScaledRestart(SmoothSchedule):
    """Scaled learning-rate restarting (Le and Hua, "Network Pruning That Matters?", ICLR 2021).

    A warm-up of a tenth of the run, half a cosine from ``low`` to ``high``; then ``high``, a tenth of it from the share
    ``first`` of the remaining epochs on, and a hundredth from ``second`` on, both in whole epochs.
    """

    high: float
    low: float
    first: float
    second: float

    def learning_rate(self, epoch: float) -> float:
        """See `Schedule.learning_rate`."""
        warm_up = self.epochs / 10
        if epoch < warm_up:
            return half_cosine(self.low, self.high, epoch / warm_up)
        drops = [int(share * (self.epochs - warm_up)) for share in (self.first, self.second)]
        return self.high / float(10 ** sum(epoch - warm_up >= drop for drop in drops))


@dataclass(frozen=True)
class OneCycle(SmoothSchedule):
    """Cyclic restarting in one cycle (Smith and Topin 2019, as PyTorch's OneCycleLR anneals it by cosines).

    From a hundredth of ``peak`` up to it over a tenth of the run, then down to a ten-thousandth.
    """

    peak: float

    def learning_rate(self, epoch: float) -> float:
        """See `Schedule.learning_rate`."""
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
        """See `Schedule.learning_rate`."""
        return self.original.learning_rate(self.start + epoch)


@dataclass(frozen=True)
class WarmedUp(SmoothSchedule):
    """Another schedule that is reached over some epochs, linearly from 0 (Goyal et al., 2017)."""

    base: Schedule
    warmup: float

    def learning_rate(self, epoch: float) -> float:
        """See `Schedule.learning_rate`."""
        return self.base.learning_rate(epoch) * min(epoch / self.warmup, 1.0)


def half_cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` at progress 0 to ``end`` at 1; beyond, the ends."""
    progress = min(max(progress, 0.0), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
