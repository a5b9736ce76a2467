"""The diagnosis of a retraining: what was wrong with it, if anything, in a verdict, numbers and advice.

A small learning rate or a short schedule doesn't perform worse, it hasn't converged (Wang, Qin, Bai, Fu, "Why is the
State of Neural Network Pruning so Confusing?", 2023), so pruning is never blamed before a probe has shown that training
was done. Every figure has its standard error, and a fault is found where it is clear by two of them. That nothing more
is to be won, or nothing is lost, can't be shown so well: there what is expected decides, and one standard error.

Two signs tell what training lacks and what the network lacks: validation accuracy, of which there is little data, and
the accuracy on the training data, of which there is much. Of the second only a part shows in the first: the dense
network has learnt some of its training data by heart. Often it had the validation data among them, so that it is as
good on these: then only the training data tell how much is really missing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prunec.compiler.recovery.advice import DECAYED_SHARE, advise
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.learning_curve import LONGER
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedule_curves import Schedule
from prunec.compiler.recovery.scores import Estimate
from prunec.compiler.recovery.signs import Measured, ProbeGain, Signs, gather
from prunec.compiler.recovery.verdicts import Verdict
from prunec.passes.unknown import Unknown

#: At least this share of what is missing on the training data is missing on other data too.
GENERALISED = 0.25
#: A probe that wins back this share of what is missing on the training data shows that training wasn't done.
RISING_SHARE = 0.05
#: A probe tells that training was done only where the run had summed up so many times the probe's learning rates:
#: a long way can't be judged by one that is hardly shorter.
RUN_OVER_PROBE = 3.0


@dataclass(frozen=True)
class Diagnosis:
    """A judgement of a retraining.

    Attributes:
        verdict: One word or two; see docs/training.md.
        evidence: The numbers that it rests on.
        advice: What would raise accuracy, the cheapest first; empty where nothing is known to.
    """

    verdict: Verdict
    evidence: Signs
    advice: tuple[str, ...] = ()


def diagnose(
    schedule: Schedule,
    curve: Sequence[EpochRecord],
    dense_accuracy: float,
    measured: Measured | None = None,
    probe: ProbeGain | None = None,
    *,
    kept_epoch: int | None = None,
    original: Schedule | None = None,
    recipe: Recover | None = None,
) -> Diagnosis:
    """Judge a finished retraining. Test data have no say in it.

    Args:
        schedule: The schedule that it followed.
        curve: Records of all its epochs.
        dense_accuracy: Metric of the dense network on the validation data, 0 to 1.
        measured: Scores of the dense network and of the one that was kept; without them nothing is known of how well
            they fit the training data.
        probe: The gain of a probe of the network that was kept; without one pruning is never blamed.
        kept_epoch: The epoch whose network was kept, counted from 1; by default the best one.
        original: The schedule of the dense network's own training, where it is known; advice goes to no higher rate.
        recipe: The recipe of the run as the user gave it: its `over_pruned_points` count as a loss, or as a gain, and
            advice keeps its other options. By default one with no options but the epochs.
    """
    recipe = recipe or Recover(len(curve))
    best = max(curve, key=lambda record: (record.validation, record.epoch))
    kept = best if kept_epoch is None else curve[kept_epoch - 1]
    evidence = gather(schedule, curve, dense_accuracy, measured, probe, kept, recipe.over_pruned_points)
    verdict = judge(evidence)
    return Diagnosis(verdict, evidence, advise(verdict, evidence, schedule, curve, original, recipe))


def judge(evidence: Signs) -> Verdict:
    """The verdict that the numbers allow."""
    limit, training = evidence.limit_points, _training(evidence)
    if _diverges(evidence):
        return "diverging"
    if training == "rising":
        return "noisy" if _is_noisy(evidence) else "under-trained"
    if evidence.missing.is_below(limit):
        return "converged"
    if training == "done" and isinstance(evidence.missing_train, Estimate):
        return _finished(evidence.missing, evidence.missing_train, limit)
    return "not known"


def _finished(missing: Estimate, missing_train: Estimate, limit: float) -> Verdict:
    """The verdict of a training that was done: the training data, of which there are more, decide where they can."""
    if missing_train.scaled(GENERALISED).is_above(limit) and missing.points >= limit:
        return "over-pruned"
    if not missing_train.is_below(limit):
        return "not known"
    if missing.is_above(limit):
        return "over-fitted"
    # It fits the training data as well as the dense network: without any evidence of a loss there is none to look for.
    return "converged" if missing.points - missing.standard_error < limit else "not known"


def _training(evidence: Signs) -> Literal["rising", "done", "not known"]:
    """Whether more training would bring anything."""
    limit, promise = evidence.limit_points, evidence.projected_gain
    gain, gain_train, missing_train = evidence.probe_gain, evidence.probe_gain_train, evidence.missing_train
    if isinstance(gain, Unknown):
        return "rising" if isinstance(promise, Estimate) and promise.is_above(limit) else "not known"
    if gain.is_above(limit):
        return "rising"
    if isinstance(gain_train, Unknown) or isinstance(missing_train, Unknown):
        return "not known"
    if not missing_train.scaled(GENERALISED).is_above(limit):
        return "done" if _is_conclusive(evidence, gain) else "not known"
    longer, third = _longer(evidence, gain_train), missing_train.points / 3
    rises = gain_train.is_above(RISING_SHARE * missing_train.points) or longer.is_above(third)
    if rises and not gain.is_below(0):
        return "rising"
    settled = gain_train.is_below(third) and longer.points < third
    return "done" if settled and _is_conclusive(evidence, gain) else "not known"


def _longer(evidence: Signs, gain_train: Estimate) -> Estimate:
    """What a longer training would win on the training data.

    The probe went a known way along the curve that the run has left behind, so that both tell of the same gain.
    """
    assert isinstance(evidence.probe_distance, float), "it is known where the probe's gain is"
    longer = gain_train.scaled(math.log(LONGER) / math.log1p(evidence.probe_distance))
    curve = evidence.projected_gain_train
    return longer.combined(curve) if isinstance(curve, Estimate) and curve.standard_error > 0 else longer


def _is_conclusive(evidence: Signs, gain: Estimate) -> bool:
    """Whether a probe without a gain says anything, and nothing on the validation data speaks against it.

    One that clearly lost what would count as a gain broke the network, and tells nothing of its training.
    """
    distance, promise = evidence.probe_distance, evidence.projected_gain
    counts = max(evidence.limit_points, evidence.missing.points / 3)
    promised = isinstance(promise, Estimate) and promise.is_above(counts)
    short = isinstance(distance, float) and distance * RUN_OVER_PROBE <= 1
    return short and not promised and not gain.is_above(0) and not gain.is_below(-counts)


def _diverges(evidence: Signs) -> bool:
    scatter = evidence.scatter_points if isinstance(evidence.scatter_points, float) else 0.0
    fell = evidence.fallen_points > max(evidence.limit_points, 2 * scatter)
    return fell and evidence.fallen_train_points > evidence.limit_points


def _is_noisy(evidence: Signs) -> bool:
    scatter = evidence.scatter_points
    noisy = isinstance(scatter, float) and scatter > evidence.limit_points
    return noisy and evidence.last_rate_share > DECAYED_SHARE
