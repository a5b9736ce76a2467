"""Bookkeeping: the entries that a step, and the dense network's own training, leave in the ledger."""

from dataclasses import replace
from typing import Any

from prunec.compiler.facts.ledger import PRETRAINING, RANDOM, LedgerEntry, MacsPerSample
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import Beside, StepCost, StepInput, StepOutput
from prunec.compiler.pipeline.pipeline import Step
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD
from prunec.passes.figures import plain_figures
from prunec.passes.identity import weights_sha256
from prunec.passes.options import resolved_options
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown

_UNTOLD = Unknown("nothing says how the checkpoint was trained: [model] pretraining in prunec.toml can.")
_NOT_TOLD = Unknown("[model] pretraining doesn't tell it.")
_RATES_NOT_TOLD = Unknown("the step tells no learning rates.")
_COSTS = ("epochs", "steps", "samples", "macs_per_sample", "learning_rates", "data", "split")


def pretraining_entry(request: Request, weights: str) -> LedgerEntry:
    """The entry for the dense network's own training, as far as it is told."""
    schedule, untrained = request.settings.pretraining, untrained_entry("", weights, _NOT_TOLD)
    if schedule is not None and schedule.epochs == 0:
        return untrained
    unknown: dict[str, Any] = dict.fromkeys(("steps", "samples", "data", "split", "seed"), _NOT_TOLD)
    if schedule is None or schedule.epochs is None:
        fields = (*unknown, "epochs", "macs_per_sample", "learning_rates", "weights_in")
        untold: dict[str, Any] = dict.fromkeys(fields, _UNTOLD)
        return replace(untrained, **untold)
    forward = request.dense.macs()
    optimizer = request.settings.pretraining_optimizer
    return replace(
        untrained,
        options={} if optimizer is None else {"optimizer": optimizer},
        epochs=float(schedule.epochs),
        macs_per_sample=MacsPerSample(forward, BACKWARD_OVER_FORWARD * forward),
        learning_rates=schedule.pieces(schedule.epochs),
        **unknown,
    )


def own_pretraining_entry(options: Pretrain, given: StepInput, output: StepOutput) -> LedgerEntry:
    """The entry for the training of a dense network that the run trained itself."""
    weights, cost = weights_sha256(output.program), output.cost or StepCost()
    if not cost.steps:
        return untrained_entry("", weights, given.seed)
    entry = _entry(PRETRAINING, output.options, given, cost, (RANDOM, weights), removed=False)
    return replace(entry, options={**entry.options, "keep_step": options.keep_step})


def untrained_entry(run: str, weights: str, seed: int | Unknown) -> LedgerEntry:
    """The entry of a network with random weights, which had no training."""
    return LedgerEntry(
        run=run,
        stage=PRETRAINING,
        options={},
        places={},
        removed=False,
        epochs=0.0,
        steps=0,
        samples=0,
        macs_per_sample=MacsPerSample(),
        learning_rates=(),
        data=None,
        split=None,
        seed=seed,
        weights_in=RANDOM,
        weights_out=weights,
    )


def step_entries(step: Step, given: StepInput, output: StepOutput, weights: str) -> tuple[LedgerEntry, ...]:
    """The entries of a step that was taken: its own, then those of work whose weights were thrown away."""
    options, before, cost = output.options or step.options, given.history[-1].weights, output.cost
    removed = _removed(given.program, output)
    own = _entry(step.name, options, given, cost or StepCost(), (before, weights), removed=removed)
    if cost is None and step.kind.needs(step.options) != "nothing":
        untold: dict[str, Any] = dict.fromkeys(_COSTS, Unknown(f"{step.name} looks at data and tells no cost."))
        own = replace(own, **untold)
    return own, *(_beside(work, given) for work in output.beside)


def _beside(work: Beside, given: StepInput) -> LedgerEntry:
    weights = (work.weights_in, None)
    if not isinstance(work.cost, Unknown):
        return _entry(work.stage, work.options, given, work.cost, weights, removed=False)
    unknown: dict[str, Any] = dict.fromkeys(_COSTS, work.cost)
    return replace(_entry(work.stage, work.options, given, StepCost(), weights, removed=False), **unknown)


def _entry(
    stage: str, options: object, given: StepInput, cost: StepCost, weights: tuple[str, str | None], *, removed: bool
) -> LedgerEntry:
    data, resolved = given.request.data, resolved_options(options)
    looked_at_data = bool(cost.samples) and data is not None
    values = dict(resolved.values)
    if cost.steps:
        augment = [] if data is None else list(data.augment)
        loss, processes = given.request.objective.loss_name, cost.processes
        values = {"loss": loss, "augment": augment, "processes": processes} | values
    if isinstance(options, Recover) and options.early:
        values["early_sha256"] = weights_sha256(given.request.settings.early[options.early])
    return LedgerEntry(
        run=given.arm,
        stage=stage,
        options=plain_figures(values),
        places=resolved.places,
        removed=removed,
        epochs=cost.epochs,
        steps=cost.steps,
        samples=cost.samples,
        macs_per_sample=_macs(given.program, cost),
        learning_rates=cost.learning_rates if cost.learning_rates or not cost.steps else _RATES_NOT_TOLD,
        data=data.sha256 if looked_at_data and data is not None else None,
        split=cost.split if looked_at_data else None,
        seed=_seed(values, given),
        weights_in=weights[0],
        weights_out=weights[1],
    )


def _seed(options: dict[str, object], given: StepInput) -> int:
    own = options.get("seed")
    return own if isinstance(own, int) else given.seed


def _macs(program: Program, cost: StepCost) -> MacsPerSample:
    if cost.macs_per_sample is not None or not cost.samples:
        return cost.macs_per_sample or MacsPerSample()
    forward = program.macs()
    return MacsPerSample(forward, BACKWARD_OVER_FORWARD * forward if cost.steps else 0)


def _removed(before: Program, output: StepOutput) -> bool:
    """Whether a step removed or masked weights; weights that a training happens to bring to 0 are neither.

    A step that computes weights anew may do with fewer parameters; then none is gone from the network's function. Nor
    is one where a calibration folds a norm that multiplies by 0.
    """
    if isinstance(output.fact, Calibrated):
        return False
    after, trained = output.program, output.cost is not None and output.cost.steps > 0
    if after.macs() < before.macs() or _masked(after) > _masked(before):
        return True
    return not trained and _zeros(after) > _zeros(before)


def _masked(program: Program) -> int:
    return sum(int((~mask).sum()) for mask in program.masks.values())


def _zeros(program: Program) -> int:
    return sum(parameter.numel() - int(parameter.count_nonzero()) for parameter in program.module.parameters())
