"""Refusals of what can't be asked for, from the request alone, before any work. Imports no torch."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import get_args

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.facts.control_names import CONTROLS
from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.own_steps import CALIBRATE, STEPS
from prunec.compiler.pipeline.pipeline import Pipeline, Step
from prunec.compiler.pipeline.step_kind import Needs
from prunec.compiler.recovery.default_schedule import choose_schedule
from prunec.compiler.recovery.hooks import HOOKS, TrainingHook, load_hooks
from prunec.compiler.recovery.named_rows import pruning_epoch
from prunec.compiler.recovery.optimizer_kinds import AUTO, KINDS, optimizer_title, rates_mean_the_same
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.quantize_hook import Quantize
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.stages.dense_trainings import SCRATCH_ARM, is_untrained, own_training, scratch_pipeline
from prunec.passes.errors import InputError, UsageError, did_you_mean
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.permute import Permute
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.runtime.costs.cost_file import read_costs
from prunec.runtime.target import Target

#: Epochs by which a checkpoint may miss the epoch that its schedule names, such as 2.49 for 30/12.06.
_NEAR = 0.01
#: The schedules that have the learning rates of the dense training.
_DERIVED = ("ft", "lrw", "wr")


def check_needs(pipeline: Pipeline, has_data: bool) -> None:
    """Refuse before any work steps that need data where there are none.

    Raises:
        UsageError: A step looks at training data, and there are none.
    """
    for step in pipeline.steps:
        with STEPS.blame(step.name):
            needs = step.kind.needs(step.options)
            if needs not in get_args(Needs):
                raise ValueError(f"needs {needs!r}; expected one of {', '.join(get_args(Needs))}")
        if needs != "nothing" and not has_data:
            what = "labelled training data" if needs == "labels" else "inputs of the training data"
            raise UsageError(
                f"The pipeline's step {step} needs {what}, and there is no training data.",
                hint=f"Name it under [data] in prunec.toml, or leave {step.name} out of the pipeline.",
            )


def check_trained_choices(pipeline: Pipeline) -> None:
    """Refuse before any work choices by a training that isn't there, and trainings that ready a network for nothing.

    Raises:
        UsageError: A criterion looks at what hooks decided, and no training before it has hooks; or a hook prepares a
            pruning, and nothing is pruned behind it, or what it can't ready a network for.
    """
    steps = pipeline.steps
    for place, step in enumerate(steps):
        if "decisions" in getattr(step.options, "needs", ()):
            trained = next((other for other in reversed(steps[:place]) if isinstance(other.options, Recover)), None)
            if trained is None or not any(hook.prepares_pruning for hook in _hooks(trained)):
                raise UsageError(
                    f"The pipeline's step {step} looks at what the hooks of the training before it decided, and "
                    f"{'there is none' if trained is None else f'{trained} has none that chooses'}.",
                    hint="Put a recover step with hooks=... that choose filters right before it.",
                )
        idle = [hook.name for hook in _hooks(step) if hook.prepares_pruning]
        if idle and not any(isinstance(other.options, PruneFilters | Sparsify) for other in steps[place + 1 :]):
            raise UsageError(
                f"The training hook {idle[0]} prepares a network for pruning, and nothing is pruned behind "
                f"{step.name}.",
                hint="Put prune-filters or sparsify behind it.",
            )
        behind = (other.options for other in steps[place + 1 :] if isinstance(other.options, PruneFilters))
        pruning = next(behind, None)
        for hook in _hooks(step):
            with HOOKS.blame(hook.name):
                hook.check_pruning(pruning)


def _hooks(step: Step) -> tuple[TrainingHook, ...]:
    return load_hooks(step.options.hooks) if isinstance(step.options, Recover) else ()


def check_patterns(pipeline: Pipeline, target: Target) -> None:
    """Refuse before any work masks and orders of channels that no kernel of the target would read.

    Raises:
        UsageError: Weights are masked to 2:4 and the device has no sparse tensor cores, the target asks for 2:4 and all
            masks are of other patterns, or channels are put in an order for such.
    """
    patterns = [options.pattern for options in pipeline.of(Sparsify)]
    if TWO_FOUR in patterns and not target.info.sparse_tensor_cores:
        raise UsageError(
            f"The pipeline masks weights to 2:4, and {target.info.title} has no sparse tensor cores.",
            hint="Compile for a device that has them (prunec targets), or mask without a gain in time, as by "
            "sparsify{pattern=elements,ratio=0.5}.",
        )
    if not patterns or TWO_FOUR in patterns:
        return
    if target.sparse:
        raise UsageError(
            f"Target {target} asks for 2:4, and the pipeline masks to {patterns[0]} alone.",
            hint=f"Use pattern=2:4, or compile for {target.device}-dense-{target.precision}.",
        )
    if pipeline.of(Permute):
        raise UsageError(
            f"permute puts channels in an order for 2:4, and the pipeline masks to {patterns[0]} alone.",
            hint="Leave permute out.",
        )


def check_limit(pipeline: Pipeline, held_back: int) -> None:
    """Refuse before any work a limit of what INT8 loses where nothing can be judged by it.

    Args:
        pipeline: The steps.
        held_back: Number of samples that are held back from training.

    Raises:
        UsageError: There is a limit, and no such samples.
    """
    for limit in (options.limit for options in pipeline.of(Calibrate)):
        if limit is not None and not held_back:
            raise UsageError(
                f"{CALIBRATE}: {limit.measure} is judged on validation data, and there are none.",
                hint="Hold some of the training data back ([data] validation_fraction), or leave the limit out.",
            )


def check_pruning_files(pipeline: Pipeline, settings: Settings) -> None:
    """Refuse before any work files of plans and cost models that aren't there, can't be read, or are of no use.

    Raises:
        InputError: There is no such file, or it holds no cost model.
        UsageError: A cost model is given, and no step chooses widths or layers by it.
    """
    prunings = pipeline.of(PruneFilters)
    for options in prunings:
        if options.plan and not Path(options.plan).is_file():
            raise InputError(f"The pruning plan {options.plan} is no file.", hint="prunec plan -o FILE writes one.")
    if settings.cost_model is None:
        return
    limits = [options.limit for options in pipeline.of(Calibrate) if options.limit is not None]
    if not limits and not any(options.goals.given for options in prunings):
        raise UsageError(
            f"--cost-model {settings.cost_model}: no step of the pipeline chooses widths for a goal.",
            hint="Ask prune-filters for one, such as latency_speedup=1.5, or leave the cost model out.",
        )
    read_costs(settings.cost_model)


def check_recoveries(
    pipeline: Pipeline, settings: Settings, optimizers: Collection[str], early: Collection[str]
) -> None:
    """Refuse before any work what no retraining can follow.

    Args:
        pipeline: The steps.
        settings: How the dense network was trained.
        optimizers: Names of the functions of the user's that make optimizers.
        early: Names of the early checkpoints; beside them there are the weights that a step pretrain keeps.

    Raises:
        UsageError: A schedule doesn't fit the dense training, the optimizer isn't there, doesn't have an option or has
            no default schedule, or the early checkpoint to rewind to isn't there.
    """
    kept = () if own_training(pipeline) is None else (Pretrain.name,)
    for options in pipeline.of(Recover):
        resolved = options.resolved(settings.pretraining_optimizer)
        check_optimizer_given(resolved, optimizers)
        if options.schedule == AUTO:
            choose_schedule(0.0, settings.pretraining, str(resolved.optimizer), settings.pretraining_optimizer)
            continue
        parse_schedule(options.schedule, epochs=options.epochs, original=settings.pretraining)
        _check_derived_rates(resolved, settings.pretraining_optimizer)
        dense, planned = settings.pretraining, pruning_epoch(options.schedule)
        trained = None if dense is None else dense.epochs
        if planned is not None and trained is not None and abs(trained - planned) > _NEAR:
            raise UsageError(
                f"The schedule {options.schedule!r} is for a network pruned at epoch {planned:g} of its dense "
                f"training, and this checkpoint was trained for {trained:g} epochs ([model] pretraining).",
                hint=f"Compile the checkpoint of epoch {planned:g}, or change the schedule.",
            )
        if options.early and options.early not in (*early, *kept):
            raise UsageError(
                f"recover: the early checkpoint {options.early!r} isn't there.",
                hint="Pass it in Settings.early; `prunec compile` loads it relative to the project file. Or let a step "
                "pretrain keep weights, and give early=pretrain.",
            )


def _check_derived_rates(options: Recover, dense_optimizer: str | None) -> None:
    optimizer, dense = str(options.optimizer), dense_optimizer or "sgd"
    known = optimizer in KINDS and dense in KINDS
    if options.bare_schedule in _DERIVED and known and not rates_mean_the_same(optimizer, dense):
        raise UsageError(
            f"recover: the schedule {options.schedule} has the dense training's learning rates, and those of "
            f"{optimizer_title(dense)} don't fit {optimizer_title(optimizer)}.",
            hint=f"Name the rates, as in cosine:{KINDS[optimizer].usual_learning_rate:g}, retrain by "
            f"{optimizer_title(dense)}, or state another optimizer in [model] pretraining.",
        )


def check_optimizer_given(options: Recover, optimizers: Collection[str]) -> None:
    """Refuse the name of an optimizer that is neither one of prunec's nor of a function of the user's."""
    name = str(options.optimizer)
    if name not in KINDS and (name not in optimizers or options.optimizer != name):
        raise UsageError(
            f"recover: the optimizer {name!r} isn't there.",
            hint="Name it in the pipeline and pass it in Settings.optimizers; `prunec compile` loads it by the project "
            "file.",
        )


def check_controls(pipeline: Pipeline, settings: Settings, has_data: bool, optimizers: Collection[str]) -> None:
    """Refuse before any work controls that can't be run.

    Raises:
        UsageError: A name is unknown, or something is missing that the controls need.
    """
    for name in settings.controls:
        if name not in CONTROLS:
            raise UsageError(f"There is no control arm {name!r}.", hint=did_you_mean(name, CONTROLS))
    if not settings.controls and settings.seeds == 1:
        return
    what = "Control arms" if settings.controls else "Several seeds"
    if not has_data:
        raise UsageError(f"{what} need labelled data.", hint="Name them under [data] in prunec.toml.")
    if settings.controls and not pipeline.of(Recover):
        raise UsageError("Control arms need a recovery to repeat.", hint="Add recover to the pipeline.")
    scratch = [name for name in settings.controls if name.startswith("scratch")]
    if "scratch-b" in scratch and is_untrained(settings):
        raise UsageError(
            "The control arm scratch-b spends the operations of the dense training, and the network was never trained.",
            hint=f"Ask for {SCRATCH_ARM}, which is trained as the run itself is.",
        )
    if scratch and not is_untrained(settings) and (settings.pretraining is None or not settings.pretraining.epochs):
        raise UsageError(
            f"The control arm {scratch[0]} is trained as the dense network was, and nothing tells how that was.",
            hint='Tell it under [model] in prunec.toml: pretraining = {epochs = 90, schedule = "step:..."}.',
        )
    if scratch and settings.pretraining is not None and settings.pretraining.epochs:
        recoveries = pipeline.of(Recover)
        epochs = math.ceil(settings.pretraining.epochs) + sum(options.epochs for options in recoveries)
        check_recoveries(scratch_pipeline(recoveries, settings, epochs), settings, optimizers, ())
    if "random" in settings.controls and not (pipeline.of(PruneFilters) or pipeline.of(Sparsify)):
        raise UsageError("The control arm random needs prune-filters or sparsify in the pipeline.")
    hooks = [hook.name for options in pipeline.of(Recover) for hook in load_hooks(options.hooks)]
    if "off-grids" in settings.controls and Quantize.name not in hooks:
        raise UsageError(
            "The control arm off-grids leaves the training hook quantize out, and no training has it.",
            hint='Train on grids: recover{hooks="quantize"}.',
        )
