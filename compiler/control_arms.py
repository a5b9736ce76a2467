"""Control arms and further seeds: the same compile again with one thing changed, up to its accuracy."""

from dataclasses import dataclass, replace

from torch import nn

from prunec.compiler.compilation import Compilation, ControlRun, Settings
from prunec.compiler.control_names import CONTROLS
from prunec.compiler.pipeline import Pipeline, Step
from prunec.compiler.recovery.controls import reinitialised, reinitialised_program
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule
from prunec.compiler.stages import run_step
from prunec.passes.errors import PrunecError, UsageError, did_you_mean
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class _Arm:
    """What a control runs.

    Attributes:
        program: it starts from.
        pipeline: of it.
        note: what is to be known of it, in words; empty for nothing.
    """

    program: Program
    pipeline: Pipeline
    note: str = ""


def check_controls(pipeline: Pipeline, settings: Settings, has_data: bool) -> None:
    """Refuse before any work controls that can't be run.

    Raises:
        UsageError: an unknown name, or something that they need is missing.
    """
    for name in settings.controls:
        if name not in CONTROLS:
            raise UsageError(f"There is no control arm {name!r}.", hint=did_you_mean(name, CONTROLS))
    if not settings.controls and settings.seeds == 1:
        return
    what = "Control arms" if settings.controls else "Several seeds"
    if not has_data:
        raise UsageError(f"{what} need labelled data.", hint="Name them under [data] in prunec.toml.")
    if settings.controls and not _recoveries(pipeline):
        raise UsageError("Control arms need a recovery to repeat.", hint="Add recover to the pipeline.")
    scratch = [name for name in settings.controls if name.startswith("scratch")]
    if scratch and (settings.pretraining is None or not settings.pretraining.epochs):
        raise UsageError(
            f"The control arm {scratch[0]} is trained as the dense network was, and nothing tells how that was.",
            hint='Tell it under [model] in prunec.toml: pretraining = {epochs = 90, schedule = "step:..."}.',
        )
    if "random" in settings.controls and not any(isinstance(s.options, PruneFilters) for s in pipeline.steps):
        raise UsageError("The control arm random needs prune-filters in the pipeline.")


def run_seeds(compilation: Compilation, pipeline: Pipeline) -> None:
    """Run all steps again for every further seed."""
    first = compilation.settings.seed
    for seed in range(first + 1, first + compilation.settings.seeds):
        again = _repeated(compilation, f"seed {seed}", _Arm(compilation.dense, pipeline), seed)
        compilation.further_seeds[seed] = again.final_accuracy


def run_controls(compilation: Compilation, pipeline: Pipeline) -> None:
    """Run the control arms that were asked for."""
    for name in compilation.settings.controls:
        arm = _arm(name, compilation, pipeline)
        done = _repeated(compilation, name, arm, compilation.settings.seed)
        assert done.recovered is not None
        epochs = sum(options.epochs for options in _recoveries(arm.pipeline))
        schedule = done.recovered.options.schedule
        compilation.controls.append(ControlRun(name, epochs, schedule, done.final_accuracy, arm.note))


def _arm(name: str, compilation: Compilation, pipeline: Pipeline) -> _Arm:
    if name == "dense":
        return _Arm(compilation.dense, Pipeline(tuple(s for s in pipeline.steps if isinstance(s.options, Recover))))
    if name == "random":
        return _Arm(compilation.dense, Pipeline(tuple(map(_at_random, pipeline.steps))))
    recoveries, original = _recoveries(pipeline), compilation.settings.pretraining
    assert original is not None
    assert original.epochs is not None
    dense_epochs = original.epochs
    if name == "scratch-b":
        dense_epochs = round(dense_epochs * compilation.dense.macs() / compilation.program.macs())
    epochs = dense_epochs + sum(options.epochs for options in recoveries)
    options = replace(
        recoveries[-1], epochs=epochs, schedule=_stretched(original, epochs), warmup=0.0, early="", probe=0
    )
    program, note = _from_scratch(compilation)
    return _Arm(program, Pipeline((Step("recover", options),)), note)


def _recoveries(pipeline: Pipeline) -> list[Recover]:
    return [step.options for step in pipeline.steps if isinstance(step.options, Recover)]


def _at_random(step: Step) -> Step:
    if isinstance(step.options, PruneFilters):
        return Step(step.name, replace(step.options, criterion="random"))
    return step


def _stretched(original: Schedule, epochs: int) -> str:
    """The dense network's schedule over another length: stages of the same shares, curves of the same kind."""
    if not isinstance(original, StepSchedule):
        return original.text
    assert original.epochs is not None
    factor = epochs / original.epochs
    return "step:" + ",".join(f"{start * factor:g}={rate:g}" for start, rate in original.stages)


def _from_scratch(compilation: Compilation) -> tuple[Program, str]:
    """The pruned architecture with random weights and the same masks, and what is to be known of the weights."""
    module, settings, compiled = compilation.settings.module, compilation.settings, compilation.program
    note = "there is no factory: weights by Kaiming's rule, norms the identity"
    program = None
    if module is not None:
        try:
            program = _captured(module, compilation)
            note = ""
        except PrunecError as error:
            note = (
                f"the factory's module can't be used ({error.message}): weights by Kaiming's rule, norms the identity"
            )
    if program is None:
        program = reinitialised_program(compiled, settings.seed)
    program.masks = {name: mask.clone() for name, mask in compiled.masks.items()}
    program.apply_masks()
    return program, note


def _captured(module: nn.Module, compilation: Compilation) -> Program:
    settings, dense = compilation.settings, compilation.dense
    pruned = reinitialised(module, compilation.plan, settings.seed, settings.initialise)
    return capture(pruned, dense.example_args, dense.example_kwargs)


def _repeated(compilation: Compilation, name: str, arm: _Arm, seed: int) -> Compilation:
    """Run an arm's steps and nothing after them."""
    compilation.progress.stage(f"control: {name}")
    again = Compilation(
        dense=compilation.dense,
        target=compilation.target,
        data=compilation.data,
        objective=compilation.objective,
        settings=replace(compilation.settings, seed=seed, tensorboard=None),
        folder=compilation.folder,
        program=arm.program,
        progress=compilation.progress,
        state_folder=compilation.state_folder,
        name=name.replace(" ", "-"),
    )
    if "dense" in compilation.accuracy:
        again.accuracy["dense"] = compilation.accuracy["dense"]
    for step in arm.pipeline.steps:
        options = replace(step.options, probe=0) if isinstance(step.options, Recover) else step.options
        run_step(again, options)
    return again
