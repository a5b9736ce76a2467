"""The judgement of a finished retraining: the networks are measured, a probe is run, and both are diagnosed."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.recovery.diagnosis import diagnose
from prunec.compiler.recovery.optimizer_kinds import KINDS, rates_mean_the_same
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import Probe, Recovered, Retraining
from prunec.compiler.recovery.schedule_curves import Schedule
from prunec.compiler.recovery.scores import Estimate, Measure, Scores
from prunec.compiler.recovery.signs import DIVERGED, Measured, ProbeGain, probe_rate
from prunec.compiler.recovery.training_start import full_schedule
from prunec.passes.errors import TrainingDivergedError
from prunec.passes.identity import weights_sha256
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown

#: Trains a copy of a program by a recipe; nothing is saved or watched.
Train = Callable[[Recover, Program], Recovered]

_NO_ARM = Unknown("control arms and further seeds are not diagnosed.")
_HELPING = Unknown("this process only helps to train.")


def judge_retraining(stated: Recover, given: StepInput, result: Recovered, train: Train) -> Retraining:
    """The facts of a retraining, with its diagnosis and what that needed.

    All processes must ask for it together: they train the probe as they trained the network.

    Args:
        stated: The recipe as the user gave it, whose choices the result's options have made.
        given: The input of the step.
        result: The retraining.
        train: Trains the probe.
    """
    fact = result.without_program()
    if given.arm:
        return replace(fact, diagnosis=_NO_ARM)
    settings, options = given.request.settings, result.options
    schedule = full_schedule(options, settings.pretraining)
    settings.progress.stage("diagnosis")
    measure = _measure(given)
    measured = _measured(given, result, measure)
    further, probe = None, None
    if options.probe_epochs:
        kind = KINDS.get(str(options.optimizer))
        usual = None if kind is None else kind.usual_learning_rate
        own = probe_rate(schedule, len(result.curve), _comparable(options, settings), usual, measured)
        rate = Processes.join().from_main(own)
        settings.progress.stage(f"probe, {options.probe_epochs} epochs, {rate:.2g} decaying to zero")
        further, probe = _probe(options, given, result, rate, train)
    fact = replace(fact, probe=probe, dense_scores=measured.dense)
    if not is_main():
        return replace(fact, diagnosis=_HELPING)
    gain = None if probe is None else _gain(probe, measured.kept, None if further is None else measure(further))
    diagnosis = diagnose(
        schedule,
        result.curve,
        float(measured.dense.validation.mean()),
        measured,
        gain,
        kept_epoch=result.best_epoch,
        original=_comparable(options, settings),
        recipe=stated,
    )
    return replace(fact, diagnosis=diagnosis)


def _measure(given: StepInput) -> Measure:
    request = given.request
    assert request.data is not None, "checked before any work: see `step_runs.check_needs`"
    return partial(Scores.of, data=request.data, metric=request.objective.metric, device=Processes.join().device)


def _measured(given: StepInput, result: Recovered, measure: Measure) -> Measured:
    """The scores of the dense network, which one measurement is enough for, and of the one that was kept."""
    earlier = given.before(Retraining)
    dense = earlier[-1].dense_scores if earlier else None
    return Measured(dense or measure(given.request.dense), measure(result.program))


def _comparable(options: Recover, settings: Settings) -> Schedule | None:
    """The schedule of the dense network's own training, where its rates mean the same as the retraining's."""
    dense = settings.pretraining_optimizer or "sgd"
    return settings.pretraining if rates_mean_the_same(str(options.optimizer), dense) else None


def _probe(
    options: Recover, given: StepInput, result: Recovered, rate: float, train: Train
) -> tuple[Program | None, Probe]:
    """The network after a probe, None where that diverged, and the facts of it."""
    recipe = replace(
        options,
        epochs=options.probe_epochs,
        schedule=f"cosine:{rate!r}",
        warmup=0.0,
        keep="last",
        early="",
        hooks="",
        probe=0,
    )
    start = weights_sha256(result.program)
    try:
        further = train(recipe, result.program)
    except TrainingDivergedError:
        return None, Probe(recipe, DIVERGED, start)
    return further.program, Probe(recipe, further.spent, start)


def _gain(probe: Probe, before: Scores, after: Scores | None) -> ProbeGain:
    won = [
        DIVERGED if after is None else Estimate.paired(getattr(after, part), getattr(before, part))
        for part in ("validation", "train")
    ]
    return ProbeGain(probe.options.epochs, float(probe.options.schedule.partition(":")[2]), *won)
