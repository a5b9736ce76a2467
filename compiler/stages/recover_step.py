"""The step that retrains what pruning left."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from prunec.calibration.splits import FirstSamples
from prunec.compiler.bundle.bundle_names import STATE_NAME
from prunec.compiler.facts.ledger import MacsPerSample
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import Beside, StepCost, StepInput, StepOutput
from prunec.compiler.recovery.default_schedule import Choice, choose_schedule
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.optimizer_kinds import AUTO, KINDS, OwnOptimizer, choose_optimizer
from prunec.compiler.recovery.recover import StateOptions, recover
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import Probe, Recovered, Retraining, Spent
from prunec.compiler.recovery.scalars import Scalars
from prunec.compiler.recovery.tensors import put
from prunec.compiler.recovery.training_start import DenseNetwork
from prunec.compiler.stages.judge_retraining import judge_retraining
from prunec.compiler.stages.pass_steps import check_masks
from prunec.compiler.stages.request_checks import check_optimizer_given
from prunec.passes.base import Aim
from prunec.passes.errors import PrunecError, TrainingDivergedError, UsageError
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown


def recover_step(options: Recover, given: StepInput) -> StepOutput:
    """Retrain what pruning left, masks held."""
    settings = given.request.settings
    stated, options = options, with_optimizer(options, settings)
    choice = _choice(options, given)
    options = replace(options, schedule=choice.schedule, probe=options.probe_epochs)
    given.request.settings.progress.stage(f"recover, {options.epochs} epochs, {options.schedule}")
    program = _rewound(options, given) if options.rewinds_weights else given.program
    state = _state_options(given)
    result = train(options, given, program, state, _dense(options, given))
    check_masks(result.program)
    fact = replace(
        judge_retraining(stated, given, result, partial(_probed, given)),
        schedule_reason=choice.reason,
        optimizer_reason=choose_optimizer(settings.pretraining_optimizer).reason if stated.optimizer == AUTO else "",
    )
    beside = () if fact.probe is None else (_beside(fact.probe, result.processes),)
    return StepOutput(
        result.program,
        fact=fact,
        cost=cost_of(result.spent, result.processes),
        options=options,
        beside=beside,
        aim=_aim(result),
    )


def _aim(result: Recovered) -> Aim:
    """The epochs that were asked for and trained; a hook that ends a training is part of what was asked for."""
    trained = len(result.curve)
    return Aim("epochs trained", result.options.epochs if result.early_end is None else trained, trained)


def _beside(probe: Probe, processes: int) -> Beside:
    cost = probe.spent if isinstance(probe.spent, Unknown) else cost_of(probe.spent, processes)
    return Beside("probe", probe.options, cost, probe.weights_in)


def cost_of(spent: Spent, processes: int) -> StepCost:
    """The cost of a training in some processes together."""
    return StepCost(
        samples=spent.samples,
        epochs=spent.epochs,
        steps=spent.steps,
        macs_per_sample=MacsPerSample(spent.forward_macs, spent.backward_macs, spent.teacher_macs, spent.hook_macs),
        learning_rates=spent.learning_rates,
        split="training data without validation",
        processes=processes,
    )


def with_optimizer(options: Recover, settings: Settings) -> Recover:
    """The options with the optimizer that is chosen; in place of a function's name the function."""
    resolved = options.resolved(settings.pretraining_optimizer)
    check_optimizer_given(resolved, settings.optimizers)
    name = str(resolved.optimizer)
    return resolved if name in KINDS else replace(resolved, optimizer=OwnOptimizer(name, settings.optimizers[name]))


def _choice(options: Recover, given: StepInput) -> Choice:
    if options.schedule != AUTO:
        return Choice(options.schedule, "")
    pruned_fraction = 1 - given.program.macs() / given.request.dense.macs()
    settings = given.request.settings
    return choose_schedule(
        pruned_fraction, settings.pretraining, str(options.optimizer), settings.pretraining_optimizer
    )


def _state_options(given: StepInput) -> StateOptions | None:
    settings, number = given.request.settings, len(given.before(Retraining))
    if given.state_folder is None:
        return None
    name = f"{given.arm.replace(' ', '-')}-{number}" if given.arm else str(number)
    return StateOptions(given.state_folder / STATE_NAME.format(name), settings.resume, settings.save_steps)


def _dense(options: Recover, given: StepInput) -> DenseNetwork:
    """What a recovery needs of the dense network."""
    teacher = given.request.dense if options.distill or options.hooks else None
    pruning = _next_pruning(given) if options.hooks else None
    return DenseNetwork(teacher, given.request.settings.pretraining, pruning=pruning)


def train(
    options: Recover, given: StepInput, program: Program, state: StateOptions | None, dense: DenseNetwork
) -> Recovered:
    """Train a copy of a program on the data of a step, and tell of every epoch.

    Raises:
        TrainingDivergedError: The loss or a weight is no longer finite.
        PrunecError: What `recover` raises.
    """
    request, settings = given.request, given.request.settings
    assert request.data is not None, "checked before any work: see `request_checks.check_needs`"
    with ExitStack() as stack:
        folder = settings.tensorboard if state is not None and not given.arm else None
        scalars = stack.enter_context(Scalars(folder)) if folder is not None else None

        def report(record: EpochRecord, _: Program) -> None:
            note = f"loss {record.train_loss:.3f}, validation {100 * record.validation:.2f} %"
            settings.progress.step(record.epoch, options.epochs, note)
            if scalars is not None:
                scalars.add(record)

        try:
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
        except TrainingDivergedError as error:
            if state is None or not state.path.exists():
                raise
            held = f"The state after the last good epoch is in {state.path}."
            raise TrainingDivergedError(error.message, hint=f"{error.hint}\n{held}") from error


def _next_pruning(given: StepInput) -> PruneFilters | None:
    """The options of the next step that prunes filters, with the seed that it will have."""
    for step in given.ahead:
        if isinstance(step.options, PruneFilters):
            return replace(step.options, seed=given.seed if step.options.seed is None else step.options.seed)
    return None


def _probed(given: StepInput, options: Recover, program: Program) -> Recovered:
    """Train a copy of a network by the recipe of a probe, which has nothing to do with the test data."""
    data = given.request.data
    assert data is not None, "checked before any work: see `step_runs.check_needs`"
    first = FirstSamples(data.validation)
    unseen = replace(given, request=replace(given.request, data=replace(data, validation=first, test=first)))
    return train(options, unseen, program, None, _dense(options, unseen))


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
