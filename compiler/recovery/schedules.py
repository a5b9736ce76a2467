"""Learning-rate schedules as text: ``step:0=1e-2,30=1e-3``, ``cosine:0.02``, ``halving:1e-2`` and the like.

How a pruned network is retrained decides its accuracy more than the pruning criterion does, so a schedule is
an exact, comparable object: its text stands in the report, and its trace is what runs are compared by.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from prunec.passes.errors import UsageError, did_you_mean

#: The halving rule: no stage is longer, and no stage has a lower learning rate.
HALVING_LONGEST_STAGE = 30
HALVING_LAST_LEARNING_RATE = Decimal("1e-5")


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
class CosineSchedule(Schedule):
    """Half a cosine from ``peak`` at the start down to ``minimum`` at the end of the run."""

    peak: float
    minimum: float
    epochs: int

    def learning_rate(self, epoch: float) -> float:
        """See `Schedule.learning_rate`."""
        progress = min(max(epoch / self.epochs, 0.0), 1.0)
        return self.minimum + (self.peak - self.minimum) * (1 + math.cos(math.pi * progress)) / 2

    @property
    def first_stage_epochs(self) -> int | None:
        """None: the learning rate falls from the first step on."""
        return None

    def trace(self, epochs: int, steps_per_epoch: int | None = None) -> list[list[float]]:
        """See `Schedule.trace`."""
        steps = steps_per_epoch or 1
        times = [step / steps for step in range(epochs * steps)]
        return [[time, self.learning_rate(time)] for time in times]


class Request(NamedTuple):
    """What a schedule is built from.

    Attributes:
        text: the whole text.
        arguments: the part of it after the colon.
        epochs: length of the run, where it is known.
        original: the schedule that the dense network was trained with, where it is known.
    """

    text: str
    arguments: str
    epochs: int | None
    original: Schedule | None

    def error(self, problem: str, hint: str | None = None) -> UsageError:
        """A usage error about this text."""
        return UsageError(f"The schedule {self.text!r} {problem}", hint=hint)

    def learning_rate(self, text: str) -> float:
        """A learning rate above 0."""
        value = self.number(text, "learning rate")
        if value <= 0:
            raise self.error(f"has the learning rate {text}; it must be above 0.")
        return value

    def number(self, text: str, what: str) -> float:
        """A finite number that isn't negative."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise self.error(f"has the {what} {text!r}; expected a number.", hint=f"For example {_EXAMPLES}.")
        return value

    def length(self) -> int:
        """Length of the run, which this kind of schedule depends on."""
        if self.epochs is None:
            raise self.error("depends on the length of the run: give the number of epochs.")
        return self.epochs


def _step(request: Request) -> Schedule:
    stages = []
    for entry in request.arguments.split(","):
        start, equals, rate = entry.partition("=")
        if not equals:
            raise request.error(f"has the entry {entry!r}; expected EPOCH=LEARNING_RATE.")
        stages.append((request.number(start, "epoch"), request.learning_rate(rate)))
    starts = [start for start, _ in stages]
    if starts[0] != 0:
        raise request.error(f"starts at epoch {starts[0]:g}; its first entry must be for epoch 0.")
    if any(after <= before for before, after in pairwise(starts)):
        raise request.error("names epochs that don't increase.")
    if request.epochs is not None and starts[-1] >= request.epochs:
        raise request.error(
            f"has an entry for epoch {starts[-1]:g}, which a run of {request.epochs} epochs never reaches.",
            hint="Train longer, or move or remove that entry.",
        )
    return StepSchedule(request.text, request.epochs, tuple(stages))


def _cosine(request: Request) -> Schedule:
    peak, *rest = request.arguments.split(",")
    if len(rest) > 1:
        raise request.error("has too many values; expected cosine:LEARNING_RATE or cosine:LEARNING_RATE,MINIMUM.")
    highest = request.learning_rate(peak)
    lowest = request.number(rest[0], "minimum") if rest else 0.0
    if lowest > highest:
        raise request.error(f"has a minimum above its learning rate ({lowest:g} > {highest:g}).")
    return CosineSchedule(text=request.text, epochs=request.length(), peak=highest, minimum=lowest)


def _constant(request: Request) -> Schedule:
    return StepSchedule(request.text, request.epochs, ((0, request.learning_rate(request.arguments)),))


def _halving(request: Request) -> Schedule:
    """Half of the epochs left to each learning rate, at most 30; each a tenth of the last, down to 1e-5."""
    request.learning_rate(request.arguments)
    rate, start, epochs = Decimal(request.arguments), 0, request.length()
    stages = [(start, float(rate))]
    while rate / 10 >= HALVING_LAST_LEARNING_RATE:
        # The last stage is not in this loop: it takes whatever is left.
        start += min(HALVING_LONGEST_STAGE, math.ceil((epochs - start) / 2))
        rate /= 10
        if start >= epochs:
            break
        stages.append((start, float(rate)))
    return StepSchedule(request.text, epochs, tuple(stages))


#: Kind of schedule -> what builds it. A new kind is a new entry.
KINDS: dict[str, Callable[[Request], Schedule]] = {
    "step": _step,
    "cosine": _cosine,
    "constant": _constant,
    "halving": _halving,
}
_EXAMPLES = "step:0=1e-2,30=1e-3, cosine:0.02, constant:1e-3 or halving:1e-2"


def parse_schedule(text: str, *, epochs: int | None = None, original: Schedule | None = None) -> Schedule:
    """The schedule that a text names: ``step``, ``cosine``, ``constant`` or ``halving``, a colon, its values.

    Args:
        text: ``step:0=1e-2,30=1e-3`` (learning rates from these epochs on), ``cosine:0.02`` or
            ``cosine:0.02,1e-4`` (down to 0 or to a minimum), ``constant:1e-3``, or ``halving:1e-2`` (half of
            the epochs left to each learning rate, at most 30; each a tenth of the last, down to 1e-5).
        epochs: length of the run; ``cosine`` and ``halving`` need it.
        original: the schedule of the dense network's own training, for kinds that derive theirs from it.

    Raises:
        UsageError: an unknown kind, values that make no schedule, or a change that the run never reaches.
    """
    text = "".join(text.split())
    kind, colon, arguments = text.partition(":")
    if epochs is not None and epochs < 1:
        raise UsageError(f"A run must have at least 1 epoch, got {epochs}.")
    if kind not in KINDS:
        raise UsageError(f"The schedule {text!r} is of an unknown kind.", hint=did_you_mean(kind, KINDS))
    if not colon or not arguments:
        raise UsageError(f"The schedule {text!r} has no learning rate.", hint=f"For example {_EXAMPLES}.")
    return KINDS[kind](Request(text, arguments, epochs, original))
