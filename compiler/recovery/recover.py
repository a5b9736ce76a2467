"""Recovery: retraining a pruned network until its accuracy is back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from prunec.calibration.data import Data
from prunec.calibration.splits import mixed_seed
from prunec.compiler.machine.versions import tool_version
from prunec.compiler.recovery.deterministic import same_each_time
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.hooks import HOOKS, load_hooks
from prunec.compiler.recovery.objective import DEFAULT_OBJECTIVE, Objective
from prunec.compiler.recovery.optimizers import settings_text
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD, Recovered, Spent
from prunec.compiler.recovery.state_file import Identity, StateFile, StateOptions
from prunec.compiler.recovery.trainability import trainability_accuracy
from prunec.compiler.recovery.training import EpochProgress, Training
from prunec.compiler.recovery.training_start import UNKNOWN_DENSE, DenseNetwork, start_training
from prunec.passes.devices import on_device, order_memory
from prunec.passes.notation import print_item
from prunec.passes.options import changed_options, named_text
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.tensors import fingerprint
from prunec.passes.unknown import Unknown

__all__ = ["DenseNetwork", "EpochRecord", "Objective", "Recover", "Recovered", "StateOptions", "recover"]


def recover(
    program: Program,
    options: Recover,
    data: Data,
    *,
    objective: Objective = DEFAULT_OBJECTIVE,
    dense: DenseNetwork = UNKNOWN_DENSE,
    seed: int = 0,
    state: StateOptions | None = None,
    progress: EpochProgress | None = None,
) -> Recovered:
    """Retrain a copy of a program; the program itself isn't changed.

    The result is a function of the arguments: order of the data, augmentation and dropout follow ``seed``. Training
    runs on a GPU where there is one, by its deterministic kernels (`same_each_time`); under ``torchrun`` all processes
    train one network together, and each gets it.

    Args:
        program: The pruned network; its masks hold throughout.
        options: The recipe.
        data: The data to train, validate and watch on.
        objective: The loss to minimise, and the metric that accuracy means.
        dense: The network before it was pruned, as far as it is known.
        seed: Seed of every random choice, not negative.
        state: File of the training's state; None for none.
        progress: Receives every epoch's record and the network as it is then, on the training's device.

    Returns:
        The network and how it came about; the diagnosis needs the dense network's accuracy and is not made here.

    Raises:
        InputError: The saved state is of another training.
        TrainingDivergedError: The loss or a weight is no longer finite.
        UnsupportedModelError: The network runs at one batch size only, or has nothing to train.
        UsageError: Distillation has no teacher, a loss gives no scalar, or a hook is unknown or fails.
    """
    processes = Processes.join()
    with _random_numbers(seed, processes), same_each_time(processes.device):
        training = start_training(program, options, data, processes, objective=objective, dense=dense, seed=seed)
        settings = settings_text(training.stepper.optimizer)  # before a step: some keep what they adapt among them
        file = None if state is None else StateFile(state, _identity(training, dense), processes)
        held = None
        if file is not None and (held := file.read()) is not None:
            with file.reading():
                training.restore(held)
        training.run(file, progress)
    return _recovered(training, settings, resumed=held is not None)


def _recovered(training: Training, optimizer_settings: str, *, resumed: bool) -> Recovered:
    options, schedule, hooks = training.stepper.options, training.schedule, training.stepper.hooks
    kept, decisions = training.result()
    program = on_device(kept, torch.device("cpu"))
    order_memory(program, torch.contiguous_format)
    epochs, steps = len(training.curve), len(training.curve) * training.steps_per_epoch
    networks, forward_macs = training.stepper.networks, training.stepper.program.macs()
    samples = steps * min(options.batch_size, len(training.data.train))
    accuracy = trainability_accuracy(schedule, [record.test for record in training.curve])
    facts = tuple(hook.fact(decided) for hook, decided in zip(hooks.hooks, decisions, strict=True))
    return Recovered(
        options=options,
        schedule_reason="",
        optimizer_reason="",
        optimizer_settings=optimizer_settings,
        program=program,
        curve=tuple(training.curve),
        learning_rates=schedule.trace(epochs),
        best_epoch=training.best_epoch or epochs,
        trainability_accuracy=accuracy,
        trainability_epochs=accuracy if isinstance(accuracy, Unknown) else schedule.first_stage_epochs or 0,
        diagnosis=Unknown("the accuracy of the dense network isn't known."),
        hooks=facts,
        early_end=training.early_end,
        spent=Spent(
            epochs=epochs,
            learning_rates=schedule.pieces(epochs),
            steps=steps,
            samples=samples,
            forward_macs=forward_macs,
            backward_macs=BACKWARD_OVER_FORWARD * forward_macs,
            teacher_macs=networks.teacher_macs,
            hook_macs=sum(fact.macs for fact in facts) / max(samples, 1),
        ),
        processes=training.stepper.processes.count,
        resumed=resumed,
        seconds=training.seconds,
    )


@contextmanager
def _random_numbers(seed: int, processes: Processes) -> Iterator[None]:
    """Let torch's random numbers follow the seed for a while; every process has its own."""
    with torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []):
        torch.manual_seed(seed if processes.rank == 0 else mixed_seed(seed, processes.rank))
        yield


def _identity(training: Training, dense: DenseNetwork) -> Identity:
    """All that the course of a training depends on before its first step, as plain values by name."""
    stepper, data, teacher = training.stepper, training.data, dense.program
    program, options = stepper.program, stepper.options
    masks = {f"{name} (mask)": mask for name, mask in program.masks.items()}
    return {
        **vars(options),
        "optimizer": str(options.optimizer),
        "optimizer settings": settings_text(stepper.optimizer),
        "hooks": named_text(HOOKS, *load_hooks(options.hooks)) or "none",
        "pruning": "none" if dense.pruning is None else print_item(PruneFilters.name, changed_options(dense.pruning)),
        "learning rates": " ".join(map(repr, training.schedule.pieces(options.epochs))),
        "seed": training.seed,
        "network": fingerprint({**program.tensors(), **masks}),
        "teacher": "none" if teacher is None else fingerprint(teacher.tensors()),
        "data": data.sha256,
        "preprocessing": data.preprocessing_sha256,
        "augmentation": ", ".join(data.augment),
        "loss": _name(stepper.objective.loss),
        "metric": _name(stepper.objective.metric),
        "processes": stepper.processes.count,
        "device": stepper.processes.device.type,
        "torch": str(torch.__version__),
        "prunec": tool_version("prunec"),
    }


def _name(function: Callable[..., object]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))
