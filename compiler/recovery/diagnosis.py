"""The diagnosis of a retraining: whether it converged, and advice where it didn't.

A small learning rate or a short schedule doesn't perform worse, it hasn't converged (Wang, Qin, Bai, Fu, "Why is the
State of Neural Network Pruning so Confusing?", 2023). Three signs tell: how fast accuracy still rose where the learning
rate decayed, how far the network is from the dense one on the very data that it trains on, and, where it was asked for,
what a few more epochs at ten times the last rate bring.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule

Verdict = Literal["converged", "under-trained", "over-pruned"]

#: Accuracy that rises faster than this, in points per epoch, has not converged.
RISING_POINTS = 0.5
#: Gain of a probe, in points, that shows that training was too short or too slow.
PROBE_GAIN_POINTS = 1.0
#: A network counts as short of the dense one from so many points below it on.
SHORTFALL_POINTS = 3.0
#: Learning rate of the probe, as a multiple of the mean over the last half of the run.
PROBE_FACTOR = 10
#: A rise that wouldn't close the shortfall in so many times the run's epochs shows no lack of them.
HORIZON = 4


@dataclass(frozen=True)
class Probe:
    """A few epochs more at a constant rate, and their best validation accuracy less the one before, in points."""

    epochs: int
    learning_rate: float
    gain_points: float


@dataclass(frozen=True)
class Diagnosis:
    """A judgement of a retraining: a verdict, and in words the signs that show it and what to change."""

    verdict: Verdict
    explanation: str

    def __str__(self) -> str:
        return f"{self.verdict}: {self.explanation}"


@dataclass(frozen=True)
class _Rise:
    """Accuracy over a stage of constant learning rate, the epochs from ``start`` to before ``end``, counted from 0.

    At the end of the stage it rises by ``points`` per epoch, with ``error`` for standard error.
    """

    start: int
    end: int
    points: float
    error: float

    @property
    def is_clear(self) -> bool:
        return self.points > max(RISING_POINTS, 2 * self.error)


def probe_rate(schedule: Schedule, epochs: int) -> float:
    """The learning rate of a probe: `PROBE_FACTOR` times the mean over the last half of the run."""
    half = [schedule.learning_rate(epochs * (0.5 + 0.5 * part / 100)) for part in range(100)]
    return PROBE_FACTOR * math.fsum(half) / len(half)


def diagnose(
    schedule: Schedule, curve: Sequence[EpochRecord], dense_accuracy: float, probe: Probe | None = None
) -> Diagnosis:
    """Judge a finished retraining.

    Args:
        schedule: The schedule that it followed.
        curve: Records of all its epochs.
        dense_accuracy: Metric of the dense network on the test data, 0 to 1.
        probe: The probe, where one was run.
    """
    best = max(curve, key=lambda record: record.validation)
    shortfall = 100 * (dense_accuracy - best.test)
    if probe is not None and probe.gain_points > PROBE_GAIN_POINTS:
        return Diagnosis(
            "under-trained",
            f"{probe.epochs} more epochs at a learning rate of {probe.learning_rate:.2g} brought "
            f"{probe.gain_points:.1f} points: start at {probe.learning_rate:.1g} or more, or train longer",
        )
    rise = next((rise for rise in _rises(schedule, curve) if rise.is_clear), None)
    if rise is not None and -RISING_POINTS < shortfall < rise.points * HORIZON * len(curve):
        return Diagnosis("under-trained", _advice(schedule, rise, shortfall, len(curve)))
    fit = 100 * (dense_accuracy - curve[-1].train)
    if shortfall > SHORTFALL_POINTS and fit > SHORTFALL_POINTS:
        return Diagnosis(
            "over-pruned",
            f"accuracy has settled {shortfall:.1f} points below the dense network, and {fit:.1f} below it on the "
            "training data too: prune less, or from an earlier checkpoint",
        )
    gap = 100 * (curve[-1].train - best.test)
    beyond = f", {gap:.1f} points above the test data on the training data: augment more" if shortfall > 3 else ""
    relative = f"{abs(shortfall):.1f} points {'below' if shortfall > 0 else 'above'}"
    return Diagnosis("converged", f"accuracy has settled {relative} the dense network{beyond}")


def _rises(schedule: Schedule, curve: Sequence[EpochRecord]) -> list[_Rise]:
    """Slopes at the end of each stage of constant rate that has at least 2 epochs or is followed by another one."""
    if not isinstance(schedule, StepSchedule):
        return []
    starts = [math.ceil(start) for start, _ in schedule.stages if start < len(curve)]
    ends = [*starts[1:], len(curve)]
    return [_slope(curve, start, end) for start, end in zip(starts, ends, strict=True) if end - max(start - 1, 0) >= 2]


def _slope(curve: Sequence[EpochRecord], start: int, end: int) -> _Rise:
    """Least squares through the last half of a stage, 2 points or more; the error of 2 is not known and counts as 0."""
    first = min(start + (end - start) // 2, end - 2)
    # The first epoch after a decay jumps: it belongs to the stage, but its slope doesn't.
    points = 100 * np.array([record.validation for record in curve[max(first, 0) : end]])
    epochs = np.arange(len(points)) - (len(points) - 1) / 2
    spread = float((epochs**2).sum())
    slope = float((epochs * points).sum()) / spread
    residuals = points - points.mean() - slope * epochs
    error = math.sqrt(float((residuals**2).sum()) / (len(points) - 2) / spread) if len(points) > 2 else 0.0
    return _Rise(start, end, slope, error)


def _advice(schedule: Schedule, rise: _Rise, shortfall: float, epochs: int) -> str:
    rate = schedule.learning_rate(rise.start)
    missing = max(2, math.ceil(max(shortfall, 1.0) / rise.points - 1e-9))
    longer = min(missing, 3 * max(rise.end - rise.start, 1))
    when = f"the learning rate decayed after epoch {rise.end}" if rise.end < epochs else "training ended"
    stage = "1" if rise.start == 0 else f"from epoch {rise.start}"
    return (
        f"{when} while accuracy still rose {rise.points:.1f} points per epoch: lengthen stage {stage} by "
        f"{longer} epochs, or start at {10 * rate:.0e}".replace("e-0", "e-")
    )
