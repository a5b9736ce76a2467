"""Advice after a diagnosis: what would raise accuracy, the cheapest first.

Where it is a retraining, it stands as the step of a pipeline that does it: the recipe of the run with what is to be
changed. Its learning rate is never above the highest one of the dense training, where that is known.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.learning_curve import LONGER, highest_rate, stretches
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule, rounded_rate
from prunec.compiler.recovery.signs import PROBE_SHARE, Signs, dense_rate
from prunec.compiler.recovery.verdicts import Verdict
from prunec.passes.notation import print_item
from prunec.passes.options import changed_options

#: A run whose last learning rate is above this share of its highest one hasn't decayed it.
DECAYED_SHARE = 0.5
#: A learning rate is far too small from so many times below the one of a probe that gained.
FAR_BELOW = 4.0
#: A longer training has at least so many epochs.
LEAST_EPOCHS = 10
#: A diverging training starts again at this share of its rate.
LOWER = 0.1
#: Temperature of distillation.
DISTILL = 4.0


def advise(
    verdict: Verdict,
    evidence: Signs,
    schedule: Schedule,
    curve: Sequence[EpochRecord],
    original: Schedule | None,
    recipe: Recover,
) -> tuple[str, ...]:
    """What would raise accuracy, the cheapest first; empty where nothing is known to.

    Args:
        verdict: The verdict.
        evidence: The numbers that it rests on.
        schedule: The schedule of the run.
        curve: The records of its epochs.
        original: The schedule of the dense network's own training, where it is known.
        recipe: The recipe of the run, whose other options advice keeps.
    """
    limit = dense_rate(original) or math.inf
    if verdict == "over-pruned":
        return ("prune less: a smaller ratio or speed-up", "prune an earlier checkpoint of the dense training")
    if verdict == "over-fitted":
        taught = f"let it learn from the dense network as well: {_text(replace(recipe, distill=DISTILL))}"
        return ("augment the training data ([data] augment)", *(() if recipe.distill else (taught,)))
    if verdict == "diverging":
        lower = rounded_rate(LOWER * highest_rate(schedule, len(curve)), limit)
        return (f"train at a lower learning rate: {_step(recipe, len(curve), f'cosine:{lower!r}')}",)
    if verdict in ("under-trained", "noisy"):
        return _more_training(evidence, schedule, curve, limit, recipe)
    return ()


def _more_training(
    evidence: Signs, schedule: Schedule, curve: Sequence[EpochRecord], limit: float, recipe: Recover
) -> tuple[str, ...]:
    epochs, own = len(curve), highest_rate(schedule, len(curve))
    probed = evidence.probe_learning_rate
    other = probed if isinstance(probed, float) else PROBE_SHARE * (limit if math.isfinite(limit) else 0.0)
    best = rounded_rate(max(own, other), limit)
    advice = []
    if evidence.last_rate_share > DECAYED_SHARE:
        advice.append(f"decay the learning rate to zero: {_step(recipe, epochs, f'cosine:{best!r}')}")
    elif best > FAR_BELOW * own:
        advice.append(f"use a larger learning rate: {_step(recipe, epochs, f'cosine:{best!r}')}")
    elif isinstance(schedule, StepSchedule):
        advice += _other_decay(schedule, curve, limit, recipe)
    longer = max(LONGER * epochs, LEAST_EPOCHS)
    advice.append(f"train longer: {_step(recipe, longer, f'cosine:{best!r}')}")
    return tuple(advice)


def _other_decay(schedule: StepSchedule, curve: Sequence[EpochRecord], limit: float, recipe: Recover) -> list[str]:
    """Earlier or later decays, where the curve shows a stage that ended while accuracy rose."""
    epochs = len(curve)
    stages = [(start, rounded_rate(rate, limit)) for start, rate in schedule.stages if start < epochs]
    rising = [fit for fit in stretches(schedule, curve, lambda record: record.validation) if fit.gain.is_above(0)]
    if not rising:
        return []
    stage = max(rising, key=lambda fit: fit.gain.points)
    if stage.end < epochs:
        more = stage.end - stage.start
        starts = [(start if start < stage.end else start + more, rate) for start, rate in stages]
        return [f"decay later, after {stage.end + more} epochs: {_step(recipe, epochs + more, _stages(starts))}"]
    # The last stage is too short: those before it end at three quarters of their time.
    starts = [(0.75 * start, rate) for start, rate in stages]
    return [f"decay earlier: {_step(recipe, epochs, _stages(starts))}"]


def _stages(stages: Sequence[tuple[float, float]]) -> str:
    return "step:" + ",".join(f"{start:g}={rate!r}" for start, rate in stages)


def _step(recipe: Recover, epochs: int, schedule: str) -> str:
    """The recipe with another schedule, from no early checkpoint, and with its warm-up where there is room for it."""
    warmup = recipe.warmup if recipe.warmup < epochs else 0.0
    return _text(replace(recipe, epochs=epochs, schedule=schedule, warmup=warmup, early=""))


def _text(recipe: Recover) -> str:
    return print_item(recipe.name, changed_options(recipe))
