"""The preparation of a training before its first step."""

from dataclasses import dataclass, replace

import torch

from prunec.calibration.data import Data
from prunec.calibration.splits import steps_per_epoch
from prunec.compiler.recovery.attached_hooks import AttachedHooks, attach_hooks
from prunec.compiler.recovery.held_out import hold_out
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.networks import prepare_networks
from prunec.compiler.recovery.objective import Objective, smoothed
from prunec.compiler.recovery.optimizers import make_optimizer
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.running_hook import TrainingContext
from prunec.compiler.recovery.schedule_curves import WarmedUp
from prunec.compiler.recovery.schedules import Schedule, parse_schedule
from prunec.compiler.recovery.stepping import Stepper, channels_last
from prunec.compiler.recovery.tensors import WeightAverage, put, snapshot
from prunec.compiler.recovery.training import Training
from prunec.passes.coupling import analyse
from prunec.passes.devices import on_device, order_memory
from prunec.passes.errors import UnsupportedModelError, UsageError, first_line
from prunec.passes.feeding import mapped
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True)
class DenseNetwork:
    """The network before it was pruned.

    Attributes:
        program: The network, as a teacher of distillation and of hooks; None where it isn't at hand.
        schedule: The schedule that it was trained with, from which others derive; None where it isn't known.
        optimizer: The optimizer that it was trained with, as recipes name it; None where it isn't known.
        pruning: The options by which filters are pruned after the training, with a seed; None where they aren't.
    """

    program: Program | None = None
    schedule: Schedule | None = None
    optimizer: str | None = None
    pruning: PruneFilters | None = None


#: A dense network that nothing is known of.
UNKNOWN_DENSE = DenseNetwork()


def start_training(
    program: Program,
    options: Recover,
    data: Data,
    processes: Processes,
    *,
    objective: Objective,
    dense: DenseNetwork,
    seed: int,
) -> Training:
    """The training of a copy of a program, which all processes begin with the first one's tensors and masks.

    Raises:
        UnsupportedModelError: The network runs at one batch size only, or has nothing to train.
        UsageError: Distillation has no teacher, a batch is too small for the processes, the schedule derives from an
            original that isn't known, labels are to be smoothed for another loss than cross-entropy, or a hook can't
            take part, or the optimizer can't be made.
    """
    options = options.resolved(dense.optimizer)
    if options.batch_size < 2 * processes.count * options.accumulate:
        raise UsageError(
            f"recover: batch_size = {options.batch_size} is too small for {processes.count} processes and "
            f"accumulate = {options.accumulate}: each part needs 2 samples.",
            hint="It is the size of all processes' shares together.",
        )
    program = on_device(program, processes.device)
    _agree(program, processes)
    if options.channels_last:
        _order_channels_last(program)
    _check_trainable(program)
    schedule = full_schedule(options, dense.schedule)
    teacher = _teacher(options, dense, processes)
    form = program.with_tensors(program.tensors()).train()
    declared = load_hooks(options.hooks)
    objective = replace(objective, loss=smoothed(objective.loss, options.label_smoothing))
    train, parts = hold_out(data.train, [hook.held_out_fraction for hook in declared], seed)
    hooks = AttachedHooks((), processes)
    if declared:
        steps = steps_per_epoch(train, options.batch_size)
        coupling = analyse(program) if dense.pruning is None else analyse(program, dense.pruning.policy)
        context = TrainingContext(
            program, coupling, teacher, options, schedule, steps, processes, seed, None, dense.pruning, objective.loss
        )
        hooks = attach_hooks(declared, context, parts, form)
    stepper = Stepper(
        networks=prepare_networks(program, form, teacher, options, hooks),
        optimizer=make_optimizer(program, options, hooks),
        objective=objective,
        hooks=hooks,
        options=options,
        processes=processes,
        average=_average(program, options, hooks),
    )
    return Training(stepper, schedule, replace(data, train=train), seed)


def full_schedule(options: Recover, original: Schedule | None) -> Schedule:
    """The recipe's schedule with its warm-up; see `parse_schedule` for ``original`` and for errors."""
    schedule = parse_schedule(options.schedule, epochs=options.epochs, original=original)
    if options.warmup == 0:
        return schedule
    return WarmedUp(f"{schedule} after {options.warmup:g} epochs of warm-up", options.epochs, schedule, options.warmup)


def _agree(program: Program, processes: Processes) -> None:
    """Take over the first process's tensors and masks: a search that ran out of time may have gone elsewhere here."""
    if processes.count > 1:
        cpu = {name: tensor.cpu() for name, tensor in snapshot(program).items()}
        tensors, masks = processes.from_main((cpu, {name: mask.cpu() for name, mask in program.masks.items()}))
        put(program, tensors)
        program.masks = {name: mask.to(processes.device) for name, mask in masks.items()}


@torch.no_grad()
def _order_channels_last(program: Program) -> None:
    order_memory(program, torch.channels_last)
    args, kwargs = mapped(channels_last, (program.example_args, program.example_kwargs))
    try:
        program(*args, **kwargs)
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"recover: the network can't run with channels_last: {first_line(error)}",
            hint="Its code names a memory order, by view() mostly; leave channels_last out of the recipe.",
        ) from error


def _check_trainable(program: Program) -> None:
    if not program.batch_is_dynamic:
        raise UnsupportedModelError(
            f"The network runs at a batch of {program.example_inputs[0].shape[0]} only, so that it can't be "
            "retrained on other batches.",
            hint="Rewrite what fixes its batch (often a view() with a number in it), or leave recover out.",
        )
    if not any(parameter.requires_grad for parameter in program.module.parameters()):
        raise UnsupportedModelError("The network has no parameters that require a gradient: nothing can be trained.")


def _teacher(options: Recover, dense: DenseNetwork, processes: Processes) -> Program | None:
    """The dense network in inference form, where something may learn from it."""
    if options.distill and dense.program is None:
        raise UsageError(
            "recover: distillation needs the dense network as its teacher, and none was given.",
            hint="Pass dense=DenseNetwork(program), or leave distill out of the recipe.",
        )
    if dense.program is None or not (options.distill or options.hooks):
        return None
    # A teacher in training form would drop activations and update its own batch-norm statistics.
    return on_device(dense.program, processes.device).eval()


def _average(program: Program, options: Recover, hooks: AttachedHooks) -> WeightAverage | None:
    """The moving average of the weights, where the recipe asks for one; the hooks' own parameters would have none."""
    if not options.ema:
        return None
    own = set(program.module.parameters())
    others = [what for what, parameter in hooks.parameters().items() if parameter not in own]
    if others:
        raise UsageError(
            f"recover: ema averages the network's own tensors, and there is {others[0]}.",
            hint="Leave ema or the hook out of the recipe.",
        )
    return WeightAverage(program, options.ema)
