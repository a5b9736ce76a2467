"""The numbers that the diagnosis of a retraining rests on, each with its standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.learning_curve import (
    PER_EPOCH,
    UNFITTED,
    Stretch,
    highest_rate,
    projected_gain,
    rate_sum,
    stretches,
)
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule, rounded_rate
from prunec.compiler.recovery.scores import Estimate, Scores
from prunec.passes.unknown import Unknown

#: A probe starts at this share of the dense training's highest rate or more, and at a larger one where a larger share
#: of what the dense network can do is missing: a higher rate breaks what the probe has no time to heal, a lower one
#: gets nowhere.
PROBE_SHARE = 0.2

NO_PROBE = Unknown("no probe was run.")
DIVERGED = Unknown("the probe diverged.")
_STAGED = Unknown("the run had stages of different learning rates: a longer one of them is not a longer run.")
_NOT_MEASURED = Unknown("the two networks were not measured on the training data.")


@dataclass(frozen=True)
class Measured:
    """The scores of the dense network and of the kept one, both in inference form on the same samples."""

    dense: Scores
    kept: Scores

    @property
    def missing_share(self) -> float:
        """The share of the dense network's accuracy on the training data that the kept one lacks; at most 1."""
        dense, kept = float(self.dense.train.mean()), float(self.kept.train.mean())
        return (dense - kept) / dense if dense > 0 else 0.0


@dataclass(frozen=True)
class ProbeGain:
    """The gain of a probe: a short continuation on a copy that restarts the learning rate and decays it to zero.

    Attributes:
        epochs: Length of the probe.
        learning_rate: Its first and highest learning rate.
        validation: Gain on the validation data; `Unknown` where it diverged.
        train: Gain on the sample of the training data, likewise.
    """

    epochs: int
    learning_rate: float
    validation: Estimate | Unknown
    train: Estimate | Unknown


@dataclass(frozen=True)
class Signs:
    """The numbers that a verdict rests on; accuracies are fractions, differences of them percentage points.

    Attributes:
        limit_points: Points that count as a loss, or as a gain.
        dense_train: Accuracy of the dense network on a sample of the training data, not augmented.
        kept_train: Accuracy of the network that was kept on the same sample.
        dense_validation: Accuracy of the dense network on the validation data.
        kept_validation: Accuracy of the network that was kept on them.
        missing: Accuracy of the dense network less that of the kept one on the validation data.
        missing_train: Accuracy that is missing likewise on the sample of the training data.
        probe_epochs: Length of the probe; 0 for none.
        probe_learning_rate: Its first and highest learning rate.
        probe_gain: Gain of the probe on the validation data.
        probe_gain_train: Gain of the probe on the sample of the training data.
        probe_distance: Sum of the probe's learning rates over that of the run up to the epoch that was kept.
        projected_gain: Gain on the validation data, by the learning curve, of a run of `learning_curve.LONGER` times
            the epochs whose further ones all went to the stage that ended most clearly too early.
        projected_gain_train: Gain of the accuracy in training likewise, of a run that wasn't in stages.
        last_rate_share: Learning rate at the end over the highest one.
        scatter_points: Standard deviation of validation accuracy from epoch to epoch, about the learning curve.
        fallen_points: Validation accuracy of the best epoch less that of the best one in the last quarter of the run.
        fallen_train_points: Accuracy in training that has fallen likewise.
    """

    limit_points: float
    dense_train: float | Unknown
    kept_train: float | Unknown
    dense_validation: float
    kept_validation: float
    missing: Estimate
    missing_train: Estimate | Unknown
    probe_epochs: int
    probe_learning_rate: float | Unknown
    probe_gain: Estimate | Unknown
    probe_gain_train: Estimate | Unknown
    probe_distance: float | Unknown
    projected_gain: Estimate | Unknown
    projected_gain_train: Estimate | Unknown
    last_rate_share: float
    scatter_points: float | Unknown
    fallen_points: float
    fallen_train_points: float


def gather(
    schedule: Schedule,
    curve: Sequence[EpochRecord],
    dense_accuracy: float,
    measured: Measured | None,
    probe: ProbeGain | None,
    kept: EpochRecord,
    limit_points: float,
) -> Signs:
    """The evidence of a finished retraining that kept the network of an epoch; see `diagnose`."""
    fits = stretches(schedule, curve, lambda record: record.validation)
    last_rate = schedule.learning_rate(len(curve) - 0.5 / PER_EPOCH)
    return Signs(
        limit_points=limit_points,
        dense_train=_NOT_MEASURED if measured is None else float(measured.dense.train.mean()),
        kept_train=_NOT_MEASURED if measured is None else float(measured.kept.train.mean()),
        dense_validation=dense_accuracy,
        kept_validation=kept.validation if measured is None else float(measured.kept.validation.mean()),
        missing=_missing(fits, kept, dense_accuracy, measured),
        missing_train=_NOT_MEASURED if measured is None else Estimate.paired(measured.dense.train, measured.kept.train),
        probe_epochs=0 if probe is None else probe.epochs,
        probe_learning_rate=NO_PROBE if probe is None else probe.learning_rate,
        probe_gain=NO_PROBE if probe is None else probe.validation,
        probe_gain_train=NO_PROBE if probe is None else probe.train,
        probe_distance=NO_PROBE if probe is None else _distance(schedule, kept.epoch, probe),
        projected_gain=projected_gain(fits),
        projected_gain_train=_projected_train(schedule, curve),
        last_rate_share=last_rate / highest_rate(schedule, len(curve)),
        scatter_points=max(fit.scatter for fit in fits) if fits else UNFITTED,
        fallen_points=_fallen([record.validation for record in curve]),
        fallen_train_points=_fallen([record.train for record in curve]),
    )


def probe_rate(
    schedule: Schedule, epochs: int, original: Schedule | None, usual: float | None, measured: Measured | None
) -> float:
    """The first learning rate of a probe: the run's highest or a share of the dense training's, not above that one's.

    Args:
        schedule: The schedule of the run.
        epochs: Length of the run.
        original: The schedule of the dense network's own training, where its rates are known and mean the same.
        usual: The highest rate that is usual by the run's optimizer, where it is known.
        measured: Scores of both networks, where they are known.
    """
    own, dense = highest_rate(schedule, epochs), dense_rate(original)
    share = PROBE_SHARE if measured is None else max(PROBE_SHARE, round(measured.missing_share, 1))
    rate = max(own, share * (dense or usual or own))
    return rounded_rate(rate, math.inf if dense is None else dense)


def dense_rate(original: Schedule | None) -> float | None:
    """The highest learning rate of the dense network's own training; None where it isn't known."""
    return highest_rate(original, original.epochs) if original is not None and original.epochs else None


def _missing(fits: Sequence[Stretch], kept: EpochRecord, dense_accuracy: float, measured: Measured | None) -> Estimate:
    if measured is not None:
        return Estimate.paired(measured.dense.validation, measured.kept.validation)
    # Without the scores of each sample the curve's own scatter is all that tells how well a point of it is known.
    return Estimate(100 * (dense_accuracy - kept.validation), max((fit.scatter for fit in fits), default=math.inf))


def _projected_train(schedule: Schedule, curve: Sequence[EpochRecord]) -> Estimate | Unknown:
    if isinstance(schedule, StepSchedule) and sum(start < len(curve) for start, _ in schedule.stages) > 1:
        return _STAGED
    return projected_gain(stretches(schedule, curve, lambda record: record.train))


def _fallen(accuracies: Sequence[float]) -> float:
    """How far the best of the last quarter, and of the last two at least, is below the best of all, in points."""
    return 100 * (max(accuracies) - max(accuracies[-max(2, len(accuracies) // 4) :]))


def _distance(schedule: Schedule, epochs: int, probe: ProbeGain) -> float:
    """The mean of half a cosine is half its peak."""
    return probe.epochs * probe.learning_rate / 2 / rate_sum(schedule, 0, epochs)
