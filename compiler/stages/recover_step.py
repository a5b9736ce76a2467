"""The step that retrains what pruning left."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from torch import Tensor

from prunec.calibration.splits import Share, Split
from prunec.compiler.facts.ledger import MacsPerSample
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import Beside, StepCost, StepInput, StepOutput
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.recovery.default_schedule import Choice, choose_schedule
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.named_rows import pruning_epoch
from prunec.compiler.recovery.optimizer_kinds import (
    AUTO,
    KINDS,
    OwnOptimizer,
    choose_optimizer,
    optimizer_title,
    rates_mean_the_same,
)
from prunec.compiler.recovery.recover import StateOptions, recover
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import Probe, Recovered, Retraining, Spent
from prunec.compiler.recovery.scalars import Scalars
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.recovery.tensors import put
from prunec.compiler.recovery.training_start import DenseNetwork
from prunec.compiler.stages.judge_retraining import judge_retraining
from prunec.compiler.stages.pass_steps import check_masks
from prunec.passes.errors import PrunecError, TrainingDivergedError, UsageError
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown

#: Epochs by which a checkpoint may miss the epoch that its schedule names, such as 2.49 for 30/12.06.
_NEAR = 0.01
#: The schedules that have the learning rates of the dense training.
_DERIVED = ("ft", "lrw", "wr")
#: File in a compile's state folder, by the control arm and the number of its retraining.
_STATE_NAME = "recover-{}.state"
_ALONE = Share()


def check_recoveries(pipeline: Pipeline, settings: Settings) -> None:
    """Refuse before any work what no retraining can follow.

    Raises:
        UsageError: A schedule doesn't fit the dense training, the optimizer isn't there, doesn't have an option or has
            no default schedule, or the early checkpoint to rewind to isn't there.
    """
    for options in pipeline.of(Recover):
        resolved = _with_optimizer(options, settings)
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
        if options.early and options.early not in settings.early:
            raise UsageError(
                f"recover: the early checkpoint {options.early!r} isn't there.",
                hint="Pass it in Settings.early; `prunec compile` loads it relative to the project file.",
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


def recover_step(options: Recover, given: StepInput) -> StepOutput:
    """Retrain what pruning left, masks held."""
    settings = given.request.settings
    stated, options = options, _with_optimizer(options, settings)
    choice = _choice(options, given)
    options = replace(options, schedule=choice.schedule, probe=options.probe_epochs)
    given.request.settings.progress.stage(f"recover, {options.epochs} epochs, {options.schedule}")
    program = _rewound(options, given) if options.rewinds_weights else given.program
    state = _state_options(given)
    try:
        result = _recover(options, given, program, state)
    except TrainingDivergedError as error:
        if state is not None and state.path.exists():
            raise TrainingDivergedError(
                error.message, hint=f"{error.hint}\nThe state after the last good epoch is in {state.path}."
            ) from error
        raise
    check_masks(result.program)
    fact = replace(
        judge_retraining(stated, given, result, partial(_probed, given)),
        schedule_reason=choice.reason,
        optimizer_reason=choose_optimizer(settings.pretraining_optimizer).reason if stated.optimizer == AUTO else "",
    )
    beside = () if fact.probe is None else (_beside(fact.probe, result.processes),)
    return StepOutput(
        result.program, fact=fact, cost=_cost(result.spent, result.processes), options=options, beside=beside
    )


def _beside(probe: Probe, processes: int) -> Beside:
    cost = probe.spent if isinstance(probe.spent, Unknown) else _cost(probe.spent, processes)
    return Beside("probe", probe.options, cost, probe.weights_in)


def _cost(spent: Spent, processes: int) -> StepCost:
    return StepCost(
        samples=spent.samples,
        epochs=spent.epochs,
        steps=spent.steps,
        macs_per_sample=MacsPerSample(spent.forward_macs, spent.backward_macs, spent.teacher_macs, spent.hook_macs),
        learning_rates=spent.learning_rates,
        split="training data without validation",
        processes=processes,
    )


def refuse_states(folder: Path, *, resume: bool, force: bool) -> None:
    """Refuse to start anew where an earlier compile left the states of its trainings.

    Args:
        folder: The folder of the states, beside the bundle.
        resume: Whether the trainings go on from them.
        force: Whether they are replaced.

    Raises:
        UsageError: There are states and neither was asked for, or there is something else of the folder's name.
    """
    if folder.is_symlink() or folder.exists():
        if not folder.is_dir():
            raise UsageError(
                f"{folder} is in the way: it is no folder, and the states of trainings are kept in one.",
                hint="Remove or rename it, or name another output with -o.",
            )
        if not (resume or force) and any(folder.glob(_STATE_NAME.format("*"))):
            raise UsageError(
                f"{folder} holds the state of a compile that was stopped.",
                hint="Go on with it by --resume, or start anew, and lose it, by --force.",
            )


def remove_states(folder: Path) -> None:
    """Remove the training states of a finished compile, and nothing else that may be there."""
    if not folder.is_dir():
        return
    for file in folder.glob(_STATE_NAME.format("*")):
        file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _choice(options: Recover, given: StepInput) -> Choice:
    if options.schedule != AUTO:
        return Choice(options.schedule, "")
    pruned_fraction = 1 - given.program.macs() / given.request.dense.macs()
    settings = given.request.settings
    return choose_schedule(
        pruned_fraction, settings.pretraining, str(options.optimizer), settings.pretraining_optimizer
    )


def _with_optimizer(options: Recover, settings: Settings) -> Recover:
    """The options with the optimizer that is chosen; in place of a function's name the function."""
    resolved = options.resolved(settings.pretraining_optimizer)
    name = str(resolved.optimizer)
    if name in KINDS:
        return resolved
    if name not in settings.optimizers or resolved.optimizer != name:
        raise UsageError(
            f"recover: the optimizer {name!r} isn't there.",
            hint="Name it in the pipeline and pass it in Settings.optimizers; `prunec compile` loads it by the project "
            "file.",
        )
    return replace(resolved, optimizer=OwnOptimizer(name, settings.optimizers[name]))


def _state_options(given: StepInput) -> StateOptions | None:
    settings, number = given.request.settings, len(given.before(Retraining))
    if given.state_folder is None:
        return None
    name = f"{given.arm.replace(' ', '-')}-{number}" if given.arm else str(number)
    return StateOptions(given.state_folder / _STATE_NAME.format(name), settings.resume, settings.save_steps)


def _recover(options: Recover, given: StepInput, program: Program, state: StateOptions | None) -> Recovered:
    request, settings = given.request, given.request.settings
    assert request.data is not None, "checked before any work: see `step_runs.check_needs`"
    dense = DenseNetwork(request.dense if options.distill or options.hooks else None, settings.pretraining)
    with ExitStack() as stack:
        folder = settings.tensorboard if state is not None and not given.arm else None
        scalars = stack.enter_context(Scalars(folder)) if folder is not None else None

        def report(record: EpochRecord, _: Program) -> None:
            note = f"loss {record.train_loss:.3f}, validation {100 * record.validation:.2f} %"
            settings.progress.step(record.epoch, options.epochs, note)
            if scalars is not None:
                scalars.add(record)

        return recover(
            program,
            options,
            request.data,
            objective=request.objective,
            dense=dense,
            seed=given.seed,
            state=state,
            progress=report,
        )


@dataclass(frozen=True)
class _FirstBatch:
    """The first batch of a split, for a training whose accuracy nobody reads."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def batches(
        self, batch_size: int, *, epoch: int | None = None, seed: int = 0, first: int = 0, share: Share = _ALONE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return islice(self.split.batches(batch_size, epoch=epoch, seed=seed, first=first, share=share), 1)


def _probed(given: StepInput, options: Recover, program: Program) -> Recovered:
    """Train a copy of a network by the recipe of a probe, which has nothing to do with the test data."""
    data = given.request.data
    assert data is not None, "checked before any work: see `step_runs.check_needs`"
    first = _FirstBatch(data.validation)
    unseen = replace(given, request=replace(given.request, data=replace(data, validation=first, test=first)))
    return _recover(options, unseen, program, None)


def _rewound(options: Recover, given: StepInput) -> Program:
    """The pruned network with the weights of an early epoch of the dense training, masks applied."""
    early = given.request.settings.early[options.early]
    program = given.program.clone()
    try:
        kept = given.plan.select_all(early.tensors())
        put(program, {name: kept[name] for name in program.tensors()})
    except (PrunecError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"recover: the early checkpoint {options.early!r} is not of this network: {error}.",
            hint="Weight rewinding needs one of the same dense training; it doesn't follow fold-parameters.",
        ) from error
    program.apply_masks()
    return program
