"""Advice after a diagnosis: what would raise accuracy, the cheapest first.

Where it is a retraining, it stands as the step of a pipeline that does it, and its learning rate is never above the
highest one of the dense training, where that is known.
"""

import math
from collections.abc import Sequence

from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.learning_curve import LONGER, highest_rate, stretches
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule
from prunec.compiler.recovery.signs import PROBE_SHARE, Signs, dense_rate
from prunec.compiler.recovery.verdicts import Verdict

#: A run whose last learning rate is above this share of its highest one hasn't decayed it.
DECAYED_SHARE = 0.5
#: A learning rate is far too small from so many times below the one of a probe that gained.
FAR_BELOW = 4.0
#: A longer training has at least so many epochs.
LEAST_EPOCHS = 10
#: A diverging training starts again at this share of its rate.
LOWER = 0.1


def advise(
    verdict: Verdict, evidence: Signs, schedule: Schedule, curve: Sequence[EpochRecord], original: Schedule | None
) -> tuple[str, ...]:
    """What would raise accuracy, the cheapest first; empty where nothing is known to.

    Args:
        verdict: The verdict.
        evidence: The numbers that it rests on.
        schedule: The schedule of the run.
        curve: The records of its epochs.
        original: The schedule of the dense network's own training, where it is known.
    """
    epochs, highest = len(curve), highest_rate(schedule, len(curve))
    if verdict == "over-pruned":
        return ("prune less: a smaller ratio or speed-up", "prune an earlier checkpoint of the dense training")
    if verdict == "over-fitted":
        return ("augment the training data ([data] augment)", "learn from the dense network too: recover{distill=4}")
    if verdict == "diverging":
        return (f"train at a lower learning rate: {_step(epochs, f'cosine:{LOWER * highest:.6g}')}",)
    if verdict in ("under-trained", "noisy"):
        return _more_training(evidence, schedule, curve, dense_rate(original))
    return ()


def _more_training(
    evidence: Signs, schedule: Schedule, curve: Sequence[EpochRecord], dense: float | None
) -> tuple[str, ...]:
    epochs, own = len(curve), highest_rate(schedule, len(curve))
    probed = evidence.probe_learning_rate
    other = probed if isinstance(probed, float) else PROBE_SHARE * (dense or 0.0)
    limit = dense or math.inf
    best = min(max(own, other), limit)
    advice = []
    if evidence.last_rate_share > DECAYED_SHARE:
        advice.append(f"decay the learning rate to zero: {_step(epochs, f'cosine:{best:.6g}')}")
    elif best > FAR_BELOW * own:
        advice.append(f"use a larger learning rate: {_step(epochs, f'cosine:{best:.6g}')}")
    elif isinstance(schedule, StepSchedule) and len(schedule.stages) > 1:
        advice += _other_decay(schedule, curve, limit)
    longer = max(LONGER * epochs, LEAST_EPOCHS)
    advice.append(f"train longer: {_step(longer, f'cosine:{best:.6g}')}")
    return tuple(advice)


def _other_decay(schedule: StepSchedule, curve: Sequence[EpochRecord], limit: float) -> list[str]:
    """Earlier or later decays, where the curve shows a stage that ended while accuracy rose."""
    epochs, stages = len(curve), [(start, min(rate, limit)) for start, rate in schedule.stages]
    rising = [fit for fit in stretches(schedule, curve, lambda record: record.validation) if fit.gain.is_above(0)]
    if not rising:
        return []
    stage = max(rising, key=lambda fit: fit.gain.points)
    if stage.end < epochs:
        more = stage.end - stage.start
        starts = [(start if start < stage.end else start + more, rate) for start, rate in stages]
        return [f"decay later, after {stage.end + more} epochs: {_step(epochs + more, _stages(starts))}"]
    # The last stage is too short: those before it end at three quarters of their time.
    starts = [(0.75 * start, rate) for start, rate in stages]
    return [f"decay earlier: {_step(epochs, _stages(starts))}"]


def _stages(stages: Sequence[tuple[float, float]]) -> str:
    return "step:" + ",".join(f"{start:g}={rate:g}" for start, rate in stages)


def _step(epochs: int, schedule: str) -> str:
    return f'recover{{epochs={epochs},schedule="{schedule}"}}'
