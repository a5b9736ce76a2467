"""Learning rates over a training run, as exact and comparable objects: their pieces are what runs are compared by."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from prunec.compiler.recovery.rate_pieces import Pieces, RatePiece, canonical, constant, cut, rates_at, rest, warmed_up


@dataclass(frozen=True)
class Schedule(ABC):
    """A learning rate for every point in time of a training run.

    Attributes:
        text: The text that it was parsed from, without blanks; ``str()`` gives it back.
        epochs: Length of the run; None where the schedule doesn't depend on it and it wasn't given.
    """

    text: str = field(compare=False)
    epochs: float | None

    def __str__(self) -> str:
        return self.text

    @abstractmethod
    def learning_rate(self, epoch: float) -> float:
        """Learning rate at a time, in epochs since the start; fractions are points within an epoch.

        A training reads it before every step: at epoch ``e + k / n`` for step ``k`` of the ``n`` of epoch ``e``.
        """

    @abstractmethod
    def pieces(self, epochs: float, warmup: float = 0.0) -> Pieces:
        """The learning rates of a run, exactly and in canonical form; none for a run of no epochs.

        Args:
            epochs: Length of the run: less than the schedule's where it ended early.
            warmup: Epochs over which they are reached, linearly from 0.
        """

    @abstractmethod
    def rest(self, start: float, text: str, epochs: float | None) -> "Schedule":
        """The schedule from one of its epochs on.

        Args:
            start: The epoch of this schedule at which the rest begins.
            text: The text of the rest.
            epochs: The length of the rest, where it is known.
        """

    @property
    def first_stage_epochs(self) -> int | None:
        """Whole epochs of the first stage of constant learning rate; None where there is none or its end isn't known.

        Trainability accuracy is the mean test accuracy over these epochs.
        """
        return None

    @abstractmethod
    def trace(self, epochs: float, steps_per_epoch: int | None = None) -> list[list[float]]:
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

    def pieces(self, epochs: float, warmup: float = 0.0) -> Pieces:
        ends = [*(start for start, _ in self.stages[1:]), math.inf]
        stages = zip(self.stages, ends, strict=True) if epochs else ()
        constants = [constant(start, min(end, epochs), rate) for (start, rate), end in stages if start < epochs]
        return warmed_up(constants, warmup)

    def rest(self, start: float, text: str, epochs: float | None) -> "StepSchedule":
        later = [(epoch - start, rate) for epoch, rate in self.stages if epoch > start]
        return StepSchedule(text, epochs, ((0, self.learning_rate(start)), *later))

    @property
    def first_stage_epochs(self) -> int | None:
        end = self.stages[1][0] if len(self.stages) > 1 else self.epochs
        return math.floor(end) or None if end is not None else None

    def trace(self, epochs: float, steps_per_epoch: int | None = None) -> list[list[float]]:
        return [[start, rate] for start, rate in self.stages if start < epochs]


@dataclass(frozen=True)
class SmoothSchedule(Schedule):
    """A learning rate that changes from step to step; it has no first stage of constant learning rate."""

    epochs: float

    def rest(self, start: float, text: str, epochs: float | None) -> Schedule:
        length = self.epochs - start if epochs is None else epochs
        return Rewound(text, length, self, start) if (start, length) != (0, self.epochs) else replace(self, text=text)

    def trace(self, epochs: float, steps_per_epoch: int | None = None) -> list[list[float]]:
        steps = steps_per_epoch or 1
        return [[step / steps, self.learning_rate(step / steps)] for step in range(math.ceil(epochs * steps))]


@dataclass(frozen=True)
class CurvedSchedule(SmoothSchedule):
    """A schedule that its pieces define."""

    @cached_property
    @abstractmethod
    def curve(self) -> Pieces:
        """The learning rates over all epochs."""

    def learning_rate(self, epoch: float) -> float:
        return rates_at(self.curve, epoch)

    def pieces(self, epochs: float, warmup: float = 0.0) -> Pieces:
        return warmed_up(cut(self.curve, 0.0, epochs), warmup)


@dataclass(frozen=True)
class CosineSchedule(CurvedSchedule):
    """Half a cosine from ``peak`` at the start down to ``minimum`` at the end of the run."""

    peak: float
    minimum: float

    @cached_property
    def curve(self) -> Pieces:
        return canonical([RatePiece(0.0, self.epochs, "cosine", self.peak, self.minimum)])


@dataclass(frozen=True)
class ScaledRestart(CurvedSchedule):
    """Scaled learning-rate restarting (Le and Hua, "Network Pruning That Matters?", ICLR 2021).

    It warms up over a tenth of the run, by half a cosine from ``low`` to ``high``. Then it is ``high``, from the share
    ``first`` of the remaining epochs on a tenth of that, and from ``second`` on a hundredth, both in whole epochs.
    """

    high: float
    low: float
    first: float
    second: float

    @cached_property
    def curve(self) -> Pieces:
        warm_up = self.epochs / 10
        drops = [int(share * (self.epochs - warm_up)) for share in (self.first, self.second)]
        times = [warm_up, *(_first_time(warm_up, drop) for drop in drops), self.epochs]
        stages = [
            constant(start, end, self.high / float(10**drop))
            for drop, (start, end) in enumerate(pairwise(times))
            if start < end
        ]
        return canonical([RatePiece(0.0, warm_up, "cosine", self.low, self.high), *stages])


@dataclass(frozen=True)
class OneCycle(CurvedSchedule):
    """Cyclic restarting in one cycle (Smith and Topin 2019, as PyTorch's OneCycleLR anneals it by cosines).

    It rises from a hundredth of ``peak`` to all of it over a tenth of the run, and falls to a ten-thousandth.
    """

    peak: float

    @cached_property
    def curve(self) -> Pieces:
        rise = self.epochs / 10
        return canonical(
            [
                RatePiece(0.0, rise, "cosine", self.peak / 100, self.peak),
                RatePiece(rise, self.epochs, "cosine", self.peak, self.peak / 10_000),
            ]
        )


@dataclass(frozen=True)
class Rewound(CurvedSchedule):
    """The last epochs of another smooth schedule."""

    original: SmoothSchedule
    start: float

    @cached_property
    def curve(self) -> Pieces:
        return rest(self.original.pieces(self.original.epochs), self.start, self.epochs)

    def learning_rate(self, epoch: float) -> float:
        return self.original.learning_rate(self.start + epoch)  # a part of a piece rounds otherwise

    def rest(self, start: float, text: str, epochs: float | None) -> Schedule:
        return self.original.rest(self.start + start, text, self.epochs - start if epochs is None else epochs)


@dataclass(frozen=True)
class WarmedUp(SmoothSchedule):
    """Another schedule that is reached over some epochs, linearly from 0 (Goyal et al., 2017)."""

    base: Schedule
    warmup: float

    def learning_rate(self, epoch: float) -> float:
        return self.base.learning_rate(epoch) * min(epoch / self.warmup, 1.0)

    def pieces(self, epochs: float, warmup: float = 0.0) -> Pieces:
        return warmed_up(self.base.pieces(epochs, self.warmup), warmup)


def _first_time(start: float, duration: float) -> float:
    """The first of all numbers from which on at least so much time has passed since a start, as floats subtract."""
    time = start + duration
    while time - start < duration:
        time = math.nextafter(time, math.inf)
    while math.nextafter(time, 0.0) - start >= duration > 0:
        time = math.nextafter(time, 0.0)
    return time


def rounded_rate(rate: float, limit: float = math.inf) -> float:
    """A learning rate to six digits, and at most at a limit, which rounding could go beyond."""
    return min(float(f"{rate:.6g}"), limit)
