"""What a recovery finetune needs before its first step."""

import torch
from torch import nn
from torch.optim import SGD

from prunec.calibration.data import Data
from prunec.compiler.recovery.averaging import WeightAverage
from prunec.compiler.recovery.losses import Distillation, Loss, smoothed
from prunec.compiler.recovery.options import Recover
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.schedule_curves import WarmedUp
from prunec.compiler.recovery.schedules import Schedule, parse_schedule
from prunec.compiler.recovery.stepping import Stepper
from prunec.compiler.recovery.sync_batchnorm import synchronise_batchnorms
from prunec.compiler.recovery.training import Training, put, snapshot
from prunec.passes.devices import on_device, order_memory
from prunec.passes.errors import UnsupportedModelError, UsageError, first_line
from prunec.passes.program import Program
from prunec.runtime.evaluate import Metric


def start_training(
    program: Program,
    options: Recover,
    data: Data,
    processes: Processes,
    *,
    teacher: Program | None,
    loss: Loss,
    metric: Metric,
    seed: int,
    original: Schedule | None,
) -> Training:
    """Training of a copy of a program, which all processes begin with the first one's tensors and masks.

    Raises:
        UnsupportedModelError: the network runs at one batch size only, or has nothing to train.
        UsageError: distillation without a teacher, a batch too small for the processes, a schedule that derives from
            an original that isn't known, or label smoothing of a loss that isn't cross-entropy.
    """
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
    optimizer = _optimizer(program, options)
    stepper = Stepper(
        program=program,
        network=_training_form(program, options, processes),
        optimizer=optimizer,
        loss=smoothed(loss, options.label_smoothing),
        metric=metric,
        distillation=_distillation(options, teacher, processes),
        options=options,
        processes=processes,
        average=WeightAverage(program, options.ema) if options.ema else None,
    )
    return Training(stepper, full_schedule(options, original), data, seed)


def full_schedule(options: Recover, original: Schedule | None) -> Schedule:
    """The recipe's schedule with its warm-up.

    Raises:
        UsageError: as `parse_schedule`.
    """
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


def _training_form(program: Program, options: Recover, processes: Processes) -> nn.Module:
    """The network in training form, over the program's own tensors; the program stays in its inference form."""
    training = program.with_tensors(program.tensors()).train()
    if options.sync_batchnorm:
        synchronise_batchnorms(training, processes)
    module: nn.Module = training.module
    if options.compile:
        module = torch.compile(module)  # type: ignore[assignment]
    return processes.parallel(module)


@torch.no_grad()
def _order_channels_last(program: Program) -> None:
    order_memory(program, torch.channels_last)
    images = program.example_inputs[0]
    try:
        program(images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images)
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"recover: the network can't run with channels_last: {first_line(error)}",
            hint="Its code names a memory order, by view() mostly; leave channels_last out of the recipe.",
        ) from error


def _distillation(options: Recover, teacher: Program | None, processes: Processes) -> Distillation | None:
    if options.distill == 0:
        return None
    if teacher is None:
        raise UsageError(
            "recover: distillation needs the dense network as its teacher, and none was given.",
            hint="Pass teacher=..., or leave distill out of the recipe.",
        )
    # A teacher in training form would drop activations and update its own batch-norm statistics.
    return Distillation(on_device(teacher, processes.device).eval(), options.distill, options.distill_weight)


def _optimizer(program: Program, options: Recover) -> SGD:
    if not program.batch_is_dynamic:
        raise UnsupportedModelError(
            f"The network runs at a batch of {program.example_inputs[0].shape[0]} only, so that it can't be "
            "retrained on other batches.",
            hint="Rewrite what fixes its batch (often a view() with a number in it), or leave recover out.",
        )
    parameters = [p for p in program.module.parameters() if p.requires_grad]
    if not parameters:
        raise UnsupportedModelError("The network has no parameters that require a gradient: nothing can be trained.")
    return SGD(
        parameters,
        lr=1.0,  # set at every step
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
    )
