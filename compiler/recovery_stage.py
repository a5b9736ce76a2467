"""The stage that retrains what pruning left."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from prunec.calibration.data import Data
from prunec.compiler.compilation import Compilation, Recovered, Settings
from prunec.compiler.pipeline import Pipeline
from prunec.compiler.recovery.default_schedule import AUTO, Choice, choose_schedule
from prunec.compiler.recovery.diagnosis import Diagnosis, Probe, diagnose, probe_rate
from prunec.compiler.recovery.prepare import full_schedule
from prunec.compiler.recovery.recover import EpochRecord, Recover, RecoveryResult, StateOptions, recover
from prunec.compiler.recovery.scalars import Scalars
from prunec.compiler.recovery.schedules import parse_schedule, pruning_epoch
from prunec.compiler.recovery.training import put
from prunec.passes.errors import PrunecError, TrainingDivergedError, UsageError
from prunec.passes.program import Program

#: File in a compile's state folder, by the control arm and the number of its retraining.
_STATE_NAME = "recover-{}.state"


def check_recoveries(pipeline: Pipeline, settings: Settings) -> None:
    """Refuse before any work what no retraining can follow.

    Raises:
        UsageError: a schedule that doesn't fit the dense training, or rewinding without the early checkpoint.
    """
    for options in (step.options for step in pipeline.steps if isinstance(step.options, Recover)):
        if options.schedule == AUTO:
            continue
        parse_schedule(options.schedule, epochs=options.epochs, original=settings.pretraining)
        dense, planned = settings.pretraining, pruning_epoch(options.schedule)
        if planned is not None and dense is not None and dense.epochs not in (None, planned):
            raise UsageError(
                f"The schedule {options.schedule!r} is for a network pruned at epoch {planned} of its dense training, "
                f"and this checkpoint was trained for {dense.epochs} epochs ([model] pretraining).",
                hint=f"Compile the checkpoint of epoch {planned}, or change the schedule.",
            )
        if options.early and options.early not in settings.early:
            raise UsageError(
                f"recover: the early checkpoint {options.early!r} isn't there.",
                hint="Pass it in Settings.early; `prunec compile` loads it relative to the project file.",
            )


def finetune(compilation: Compilation, options: Recover) -> None:
    """Retrain what pruning left, masks held."""
    if compilation.data is None:
        raise UsageError(
            "The pipeline asks for a recovery finetune, and there is no training data.",
            hint="Name it under [data] in prunec.toml, or leave recover out of the pipeline.",
        )
    choice = _choice(compilation, options)
    options = replace(options, schedule=choice.schedule)
    compilation.progress.stage(f"recover, {options.epochs} epochs, {options.schedule}")
    if options.rewinds_weights:
        compilation.program = _rewound(compilation, options)
    state = _state_options(compilation)
    try:
        result = _recover(compilation, options, compilation.data, compilation.program, state)
    except TrainingDivergedError as error:
        if state is not None and state.path.exists():
            raise TrainingDivergedError(
                error.message, hint=f"{error.hint}\nThe state after the last good epoch is in {state.path}."
            ) from error
        raise
    diagnosis = _diagnosis(compilation, options, result, compilation.data)
    compilation.recovered = Recovered(options, result, choice.reason, diagnosis)
    compilation.recoveries += 1
    compilation.program = result.program


def remove_states(folder: Path | None) -> None:
    """Remove the training states of a finished compile, and nothing else that may be there."""
    if folder is None or not folder.is_dir():
        return
    for file in folder.glob(_STATE_NAME.format("*")):
        file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _choice(compilation: Compilation, options: Recover) -> Choice:
    if options.schedule != AUTO:
        return Choice(options.schedule, "")
    pruned_fraction = 1 - compilation.program.macs() / compilation.dense.macs()
    return choose_schedule(pruned_fraction, compilation.settings.pretraining)


def _state_options(compilation: Compilation) -> StateOptions | None:
    settings = compilation.settings
    if compilation.state_folder is None:
        return None
    path = compilation.state_folder / _STATE_NAME.format(
        f"{compilation.name}-{compilation.recoveries}" if compilation.name else compilation.recoveries
    )
    return StateOptions(path, settings.resume, settings.save_steps)


def _recover(
    compilation: Compilation, options: Recover, data: Data, program: Program, state: StateOptions | None
) -> RecoveryResult:
    with ExitStack() as stack:
        folder = compilation.settings.tensorboard
        scalars = stack.enter_context(Scalars(folder)) if folder is not None and state is not None else None

        def report(record: EpochRecord, _: Program) -> None:
            note = f"loss {record.train_loss:.3f}, validation {100 * record.validation:.2f} %"
            compilation.progress.step(record.epoch, options.epochs, note)
            if scalars is not None:
                scalars.add(record)

        return recover(
            program,
            options,
            data,
            teacher=compilation.dense if options.distill else None,
            loss=compilation.objective.loss,
            metric=compilation.objective.metric,
            seed=compilation.settings.seed,
            original=compilation.settings.pretraining,
            state=state,
            progress=report,
        )


def _diagnosis(compilation: Compilation, options: Recover, result: RecoveryResult, data: Data) -> Diagnosis | None:
    schedule = full_schedule(options, compilation.settings.pretraining)
    probe = None
    if options.probe:
        rate = probe_rate(schedule, options.epochs)
        compilation.progress.stage(f"probe, {options.probe} epochs at {rate:.2g}")
        probe = _probe(compilation, options, result, data, rate)
    if "dense" not in compilation.accuracy:  # one of the processes that only help
        return None
    return diagnose(schedule, result.curve, compilation.accuracy["dense"], probe)


def _probe(compilation: Compilation, options: Recover, result: RecoveryResult, data: Data, rate: float) -> Probe:
    """A few epochs more; a divergence brings nothing."""
    more = replace(options, epochs=options.probe, schedule=f"constant:{rate!r}", warmup=0.0, keep="best", early="")
    reached = max(record.validation for record in result.curve)
    try:
        further = _recover(compilation, more, data, result.program, None).curve
    except TrainingDivergedError:
        return Probe(options.probe, rate, -100 * reached)
    return Probe(options.probe, rate, 100 * (max(record.validation for record in further) - reached))


def _rewound(compilation: Compilation, options: Recover) -> Program:
    """The pruned network with the weights of an early epoch of the dense training, masks applied."""
    early = compilation.settings.early[options.early]
    program = compilation.program.clone()
    try:
        kept = compilation.plan.select_all(early.tensors())
        put(program, {name: kept[name] for name in program.tensors()})
    except (PrunecError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"recover: the early checkpoint {options.early!r} is not of this network: {error}.",
            hint="Weight rewinding needs one of the same dense training; it doesn't follow fold-parameters.",
        ) from error
    program.apply_masks()
    return program
