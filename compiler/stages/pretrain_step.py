"""The step that trains the dense network from fresh weights, before all others."""

from dataclasses import dataclass, replace
from pathlib import Path

from prunec.calibration.splits import mixed_seed, steps_per_epoch
from prunec.compiler.bundle.bundle_names import STATE_NAME
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import StepCost, StepFact, StepInput, StepOutput
from prunec.compiler.recovery.keep_step import KEPT, KeepStep
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.recover import StateOptions
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.tensors import put
from prunec.compiler.recovery.training_start import UNKNOWN_DENSE
from prunec.compiler.stages.booking import own_pretraining_entry
from prunec.compiler.stages.dense_trainings import dense_training, own_training
from prunec.compiler.stages.fresh_network import fresh_network
from prunec.compiler.stages.preflight import preflight
from prunec.compiler.stages.recover_step import cost_of, train, with_optimizer
from prunec.compiler.stages.step_runs import dense_fact
from prunec.passes.errors import UsageError
from prunec.passes.identity import architecture_sha256
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program

#: Keeps the dense network's first weights apart from those of the control arm from scratch, which are drawn by the seed
#: itself: where weights are masked both have the same shapes.
_DRAWN = 1


@dataclass(frozen=True)
class Pretrained:
    """The network as it was after the steps at which it was to be kept."""

    kept: Program


def own_dense(request: Request, state_folder: Path | None) -> tuple[Request, StepFact]:
    """Train the dense network of a request whose pipeline begins with that.

    Args:
        request: The request; its dense network says which inputs and outputs the factory's has.
        state_folder: Folder for the state of the training; None for none.

    Returns:
        The request of that network, whose weights that were kept on the way are an early checkpoint, and its fact.

    Raises:
        UsageError: The factory builds another network than the checkpoint's, or weights are kept where no recovery goes
            back to.
        PrunecError: The network can't be drawn or trained.
    """
    settings, options = request.settings, own_training(request.pipeline)
    assert options is not None, "asked for where the pipeline begins with it"
    if options.epochs:
        _check_kept(options, dense_training(request.pipeline, options), request)
    seed = settings.seed if options.seed is None else options.seed
    drawn = fresh_network(request, PruningPlan({}), mixed_seed(seed, _DRAWN)).inference().single()
    if architecture_sha256(drawn) != architecture_sha256(request.dense):
        raise UsageError(
            "pretrain: the factory builds another network than the checkpoint's.",
            hint="Name the factory of this checkpoint: [model] factory.",
        )
    given = StepInput(drawn, request, seed, (), state_folder=state_folder)
    tried = preflight(given, request.pipeline.on_dense) if options.epochs else None
    output = pretrain(options, given)
    assert isinstance(output.fact, Pretrained)
    early = {**settings.early, Pretrain.name: output.fact.kept}
    trained = replace(request, dense=output.program, settings=replace(settings, early=early))
    return trained, replace(dense_fact(trained, own_pretraining_entry(options, given, output)), preflight=tried)


def pretrain(options: Pretrain, given: StepInput) -> StepOutput:
    """Train a network of fresh weights; those after some steps are kept."""
    settings, start = given.request.settings, given.program
    if not options.epochs:
        return StepOutput(start, modified=False, fact=Pretrained(start), cost=StepCost())
    training = with_optimizer(dense_training(given.request.pipeline, options), settings)
    settings.progress.stage(f"pretrain, {options.epochs} epochs, {options.schedule}")
    state = None
    if given.state_folder is not None:
        path = given.state_folder / STATE_NAME.format(Pretrain.name)
        state = StateOptions(path, settings.resume, settings.save_steps)
    hooked = replace(training, hooks=(KeepStep(options.keep_step),)) if options.keep_step else training
    result = train(hooked, given, start, state, UNKNOWN_DENSE)
    kept = start.clone()
    for hook in result.hooks:
        put(kept, hook.decided[KEPT])  # type: ignore[arg-type]
    cost = cost_of(result.spent, result.processes)
    return StepOutput(result.program, fact=Pretrained(kept), cost=cost, options=training)


def _check_kept(options: Pretrain, training: Recover, request: Request) -> None:
    """Refuse weights of a step that the training doesn't have, or at which no recovery that goes back begins."""
    assert request.data is not None, "checked before any work: see `request_checks.check_needs`"
    per_epoch = steps_per_epoch(request.data.train, training.batch_size)
    if options.keep_step > per_epoch * options.epochs:
        raise UsageError(
            f"pretrain: keep_step is {options.keep_step}, and the training has {per_epoch * options.epochs} steps, "
            f"{per_epoch} in each of {options.epochs} epochs."
        )
    recoveries: list[Recover] = request.pipeline.of(Recover)
    for recovery in (each for each in recoveries if each.early == Pretrain.name):
        begins, kept = options.epochs - recovery.epochs, options.keep_step / per_epoch
        if abs(begins - kept) >= 1:
            raise UsageError(
                f"recover: the learning rates of {recovery.epochs} epochs of {recovery.schedule} begin at epoch "
                f"{begins} of the dense training, and its weights are kept at epoch {kept:.3g} "
                f"(keep_step={options.keep_step}).",
                hint=f"Give pretrain keep_step={begins * per_epoch}, or recover other epochs.",
            )
