"""Control arms and further seeds: the same compile again with one thing changed, up to its accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prunec.compiler.facts.control_names import CONTROLS
from prunec.compiler.facts.outcome import ControlRun
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepInput, facts_of, last_accuracy
from prunec.compiler.pipeline.pipeline import Pipeline, Step
from prunec.compiler.recovery.controls import reinitialised, reinitialised_program
from prunec.compiler.recovery.optimizer_kinds import AUTO
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import Retraining
from prunec.compiler.recovery.schedule_curves import Schedule, StepSchedule
from prunec.compiler.stages.step_runs import run_steps
from prunec.passes.errors import PrunecError, UsageError, did_you_mean
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.tensors import fingerprint
from prunec.passes.unknown import Unknown


@dataclass(frozen=True)
class _Arm:
    """The run of a control: its first program, its steps, and a remark that a reader of its figures needs."""

    program: Program
    pipeline: Pipeline
    note: str = ""


def check_controls(pipeline: Pipeline, settings: Settings, has_data: bool) -> None:
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
    if scratch and (settings.pretraining is None or not settings.pretraining.epochs):
        raise UsageError(
            f"The control arm {scratch[0]} is trained as the dense network was, and nothing tells how that was.",
            hint='Tell it under [model] in prunec.toml: pretraining = {epochs = 90, schedule = "step:..."}.',
        )
    if "random" in settings.controls and not pipeline.of(PruneFilters):
        raise UsageError("The control arm random needs prune-filters in the pipeline.")


def run_seeds(main: StepInput) -> tuple[Mapping[int, float | Unknown], bool]:
    """Run all steps of a run that has ended again, with further seeds.

    Returns:
        The accuracy that is measured last by seed, and whether any seed gave other weights.
    """
    request = main.request
    seeds = range(request.settings.seed + 1, request.settings.seed + request.settings.seeds)
    arm = _Arm(request.dense, request.pipeline)
    accuracies: dict[int, float | Unknown] = {}
    weights = {fingerprint(main.program.tensors())}
    for seed in seeds:
        run = _repeated(main, f"seed {seed}", arm, seed)
        accuracies[seed] = last_accuracy(run.history)
        weights.add(fingerprint(run.program.tensors()))
    return accuracies, len(weights) > 1


def run_controls(main: StepInput) -> tuple[ControlRun, ...]:
    """Run the control arms that were asked for, to compare with a run that has ended."""
    runs = []
    for name in main.request.settings.controls:
        arm = _arm(name, main)
        history = _repeated(main, name, arm, main.seed).history
        epochs = sum(options.epochs for options in arm.pipeline.of(Recover))
        schedule = facts_of(history, Retraining)[-1].options.schedule
        runs.append(ControlRun(name, epochs, schedule, last_accuracy(history), arm.note))
    return tuple(runs)


def _arm(name: str, main: StepInput) -> _Arm:
    request, pipeline = main.request, main.request.pipeline
    if name == "dense":
        return _Arm(request.dense, Pipeline(tuple(s for s in pipeline.steps if isinstance(s.options, Recover))))
    if name == "random":
        return _Arm(request.dense, _changed(pipeline, PruneFilters, criterion="random"))
    recoveries, original = pipeline.of(Recover), request.settings.pretraining
    assert original is not None
    assert original.epochs is not None
    dense_epochs = original.epochs
    if name == "scratch-b":
        dense_epochs = round(dense_epochs * request.dense.macs() / main.program.macs())
    epochs = dense_epochs + sum(options.epochs for options in recoveries)
    recovery, dense_optimizer = recoveries[-1], request.settings.pretraining_optimizer
    if dense_optimizer is not None and str(recovery.optimizer) not in (AUTO, dense_optimizer):
        recovery = recovery.with_optimizer(dense_optimizer)  # whose rates the schedule holds
    options = replace(recovery, epochs=epochs, schedule=_stretched(original, epochs), warmup=0.0, early="")
    program, note = _from_scratch(main)
    return _Arm(program, Pipeline((Step("recover", options),)), note)


def _changed(pipeline: Pipeline, kind: type[PruneFilters | Recover], **options: Any) -> Pipeline:
    """A pipeline with other options in its steps of a kind."""
    steps = (replace(s, options=replace(s.options, **options)) if s.name == kind.name else s for s in pipeline.steps)
    return Pipeline(tuple(steps))


def _stretched(original: Schedule, epochs: int) -> str:
    """The dense network's schedule over another length: stages of the same shares, curves of the same kind."""
    if not isinstance(original, StepSchedule):
        return original.text
    assert original.epochs is not None
    factor = epochs / original.epochs
    return "step:" + ",".join(f"{start * factor:g}={rate:g}" for start, rate in original.stages)


def _from_scratch(main: StepInput) -> tuple[Program, str]:
    """The pruned architecture with random weights and the same masks, and a note on how the weights were drawn."""
    settings, dense, compiled = main.request.settings, main.request.dense, main.program
    by_rule = "weights by Kaiming's rule, norms the identity"
    program, note = None, f"there is no factory: {by_rule}"
    if settings.module is not None:
        try:
            pruned = reinitialised(settings.module, main.plan, settings.seed, settings.initialise)
            program, note = capture(pruned, dense.example_args, dense.example_kwargs), ""
        except PrunecError as error:
            note = f"the factory's module can't be used ({error.message}): {by_rule}"
    if program is None:
        program = reinitialised_program(compiled, settings.seed)
    program.masks = {name: mask.clone() for name, mask in compiled.masks.items()}
    program.apply_masks()
    return program, note


def _repeated(main: StepInput, name: str, arm: _Arm, seed: int) -> StepInput:
    """Run an arm's steps and nothing after them; without probes, whose verdict nobody would read."""
    main.request.settings.progress.stage(f"control: {name}")
    start = replace(main, program=arm.program, history=main.history[:1], seed=seed, arm=name)
    return run_steps(start, _changed(arm.pipeline, Recover, probe=0))
