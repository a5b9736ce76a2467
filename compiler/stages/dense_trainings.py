"""How dense networks are trained: by the run itself, or once more from scratch. Imports no torch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.pipeline import Pipeline, Step
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule
from prunec.passes.errors import UsageError
from prunec.passes.sparsify import Sparsify

#: The control arm of every mask at initialisation.
SCRATCH_ARM = "scratch-e"


def own_training(pipeline: Pipeline) -> Pretrain | None:
    """The options by which a run trains its dense network; None where the checkpoint is it."""
    return next(iter(pipeline.of(Pretrain)), None)


def check_own_training(pipeline: Pipeline, has_factory: bool) -> None:
    """Refuse before any work a dense network that is to be trained, where nothing builds it.

    Raises:
        UsageError: There is no factory.
    """
    if own_training(pipeline) is not None and not has_factory:
        raise UsageError(
            "The pipeline's step pretrain trains the dense network from fresh weights, and no factory builds it.",
            hint='Name one: [model] factory = "module:callable" in prunec.toml, or --model module:callable; in Python '
            "Settings(module=...).",
        )


def implied(settings: Settings, pipeline: Pipeline, *, has_data: bool) -> Settings:
    """The settings with what a pipeline says of the dense network, and of the control arms that it needs.

    A network that the run trains itself is told by that training alone. Masks that are made of random weights are
    compared with others of their shape from scratch.
    """
    options = own_training(pipeline)
    if options is not None:
        optimizer = str(dense_training(pipeline, options).optimizer) if options.epochs else None
        settings = replace(
            settings, pretraining=options.learning_rates, pretraining_optimizer=optimizer, stated_accuracy=None
        )
    if has_data and is_untrained(settings) and _masks_first(pipeline) and SCRATCH_ARM not in settings.controls:
        settings = replace(settings, controls=(*settings.controls, SCRATCH_ARM))
    return settings


def is_untrained(settings: Settings) -> bool:
    """Whether the dense network is known to have random weights."""
    return settings.pretraining is not None and settings.pretraining.epochs == 0


def _masks_first(pipeline: Pipeline) -> bool:
    """Whether weights are masked before the first training, and trained then."""
    options = [step.options for step in pipeline.steps if isinstance(step.options, Sparsify | Recover)]
    return isinstance(next(iter(options), None), Sparsify) and bool(pipeline.of(Recover))


def dense_training(pipeline: Pipeline, options: Pretrain) -> Recover:
    """The training of the dense network by the options of the pipeline's last recovery, of one epoch or more."""
    recoveries: list[Recover] = pipeline.of(Recover)
    recovery = recoveries[-1] if recoveries else Recover(epochs=1)
    changes = {"epochs": options.epochs, "schedule": options.schedule, "warmup": 0.0}
    return _alone(recovery, **changes, keep="last", ema=0.0, probe=0).resolved(None)


def scratch_pipeline(recoveries: Sequence[Recover], settings: Settings, epochs: int) -> Pipeline:
    """The training of a network from scratch, in which nothing teaches and nothing else takes part.

    Args:
        recoveries: The recoveries of the run.
        settings: How the dense network was trained: so is this one. Where that has random weights, as the run trains.
        epochs: Length of the training, where it is the dense network's.
    """
    original, dense_optimizer = settings.pretraining, settings.pretraining_optimizer
    assert original is not None
    if is_untrained(settings):
        return Pipeline(tuple(Step(Recover.name, _alone(each)) for each in recoveries))
    recovery = recoveries[-1]
    if dense_optimizer is not None and str(recovery.optimizer) != dense_optimizer:
        recovery = recovery.with_optimizer(dense_optimizer)  # whose rates the schedule holds
    schedule = _stretched(original, epochs)
    return Pipeline((Step(Recover.name, _alone(recovery, epochs=epochs, schedule=schedule, warmup=0.0)),))


def _alone(recovery: Recover, **changes: Any) -> Recover:
    """A training without a teacher, hooks, and a checkpoint to go back to."""
    return replace(recovery, early="", distill=0.0, hooks="", **changes)


def _stretched(original: Schedule, epochs: int) -> str:
    """The dense network's schedule over another length: stages of the same shares, curves of the same kind."""
    if not isinstance(original, StepSchedule):
        return original.text
    assert original.epochs is not None
    factor = epochs / original.epochs
    return "step:" + ",".join(f"{start * factor:.12g}={rate:.12g}" for start, rate in original.stages)
