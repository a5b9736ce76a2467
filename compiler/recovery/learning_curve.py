"""What a learning curve says of the epochs that might follow.

At one learning rate accuracy grows ever more slowly, about with the logarithm of the epochs; a decaying rate adds what
annealing brings. Both together are the linear model of Tissue, Wang and Wang, "Scaling Law with Learning Rate
Annealing" (2024), with a logarithm for its power law: accuracy = a + b ln S - c r, with the learning rates so far
summed up to S, and r the rate at the time as a share of the highest. Least squares give b with its standard error, and
the gain of a training that is several times as long follows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.rate_pieces import highest
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule
from prunec.compiler.recovery.scores import Estimate
from prunec.passes.unknown import Unknown

#: A longer training is one of so many times the epochs.
LONGER = 3
#: Number of points beyond the model's parameters from which on an error is known at all well.
_SPARE_POINTS = 3
#: Points in every epoch at which a schedule is sampled for its sum.
PER_EPOCH = 20
#: Share of a run under a smooth schedule that is left out: its first steps follow no law.
_WARM_UP = 0.25

UNFITTED = Unknown("the run has too few epochs at one rate, or in all, to fit its learning curve.")


@dataclass(frozen=True)
class Stretch:
    """The epochs from ``start`` to before ``end``, counted from 0, and what the curve over them promises.

    Attributes:
        gain: Gain of accuracy if the stretch were so much longer that the whole run had `LONGER` times its epochs.
        scatter: Standard deviation of the points about the fitted curve, in percentage points.
    """

    start: int
    end: int
    gain: Estimate
    scatter: float


def rate_sum(schedule: Schedule, start: float, end: float) -> float:
    """The learning rate summed over the time between two points, in epochs: how far a training can have gone."""
    count = max(1, round((end - start) * PER_EPOCH))
    width = (end - start) / count
    return width * math.fsum(schedule.learning_rate(start + (part + 0.5) * width) for part in range(count))


def highest_rate(schedule: Schedule, epochs: float) -> float:
    """The highest learning rate of a run of so many epochs."""
    return highest(schedule.pieces(epochs))


def stretches(
    schedule: Schedule, curve: Sequence[EpochRecord], accuracy: Callable[[EpochRecord], float]
) -> list[Stretch]:
    """Every stretch of a curve that is long enough to be fitted: stages of constant rate, or one smooth whole.

    Args:
        schedule: The schedule of the run.
        curve: The records of its epochs.
        accuracy: Picks the accuracy to fit, 0 to 1, from a record.
    """
    points = 100 * np.array([accuracy(record) for record in curve], dtype=np.float64)
    if not isinstance(schedule, StepSchedule):
        stretches = [_smooth(schedule, points)]
    else:
        ends = [min(len(curve), math.ceil(start)) for start, _ in schedule.stages] + [len(curve)]
        stretches = [_stage(points, start, end) for start, end in pairwise(ends)]
    return [stretch for stretch in stretches if stretch is not None]


def projected_gain(stretches: Sequence[Stretch]) -> Estimate | Unknown:
    """The gain of the stretch that ended most clearly too early."""
    if not stretches:
        return UNFITTED
    return max((stretch.gain for stretch in stretches), key=lambda gain: gain.points - 2 * gain.standard_error)


def _stage(points: NDArray[np.float64], start: int, end: int) -> Stretch | None:
    """The last half of a stage, where what the change of the rate did has passed."""
    epochs = np.arange(1, end - start + 1, dtype=np.float64)[(end - start) // 2 :]
    values = points[end - len(epochs) : end]
    return _fitted(
        start, end, math.log1p((LONGER - 1) * len(points) / max(end - start, 1)), np.log(epochs)[:, None], values
    )


def _smooth(schedule: Schedule, points: NDArray[np.float64]) -> Stretch | None:
    count = len(points)
    first = math.ceil(_WARM_UP * count)
    sums = np.cumsum([rate_sum(schedule, epoch, epoch + 1) for epoch in range(count)])[first:]
    rates = np.array([schedule.learning_rate(epoch + 1 - 0.5 / PER_EPOCH) for epoch in range(count)])[first:]
    features = np.column_stack([np.log(sums), -rates / highest_rate(schedule, count)])
    return _fitted(0, count, math.log(LONGER), features, points[first:])


def _fitted(
    start: int, end: int, growth: float, features: NDArray[np.float64], points: NDArray[np.float64]
) -> Stretch | None:
    """Least squares; ``growth`` is by how much the first of the features would grow."""
    design = np.column_stack([features, np.ones(len(points))])
    spare = len(points) - design.shape[1]
    if spare < _SPARE_POINTS or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    coefficients = np.linalg.lstsq(design, points, rcond=None)[0]
    variance = float(((points - design @ coefficients) ** 2).sum()) / spare
    error = math.sqrt(variance * float(np.linalg.inv(design.T @ design)[0, 0]))
    gain = Estimate(growth * float(coefficients[0]), growth * error)
    return Stretch(start, end, gain, math.sqrt(variance))
