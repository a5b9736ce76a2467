"""The assembly of a report from the request and the facts of a compile, before it is judged."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from prunec.calibration.data import Data
from prunec.calibration.plausibility import Plausibility
from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.facts.outcome import ControlRun, Outcome
from prunec.compiler.facts.pass_facts import Calibrated, Decomposed, Permuted, Pruned, Sparsified
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import StepFact, facts_of, last_accuracy, last_fact, whole_plan
from prunec.compiler.pipeline.own_steps import ACCURACY_STAGES
from prunec.compiler.recovery.optimizer_kinds import optimizer_title
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import Retraining
from prunec.compiler.report import engine_facts, engine_parts, network_parts, training_parts
from prunec.compiler.report.calibration_part import CalibrationPart
from prunec.compiler.report.cost_report import costs_part, timed_part, with_time_asked
from prunec.compiler.report.layer_table import NOT_PERMUTED, layer_parts
from prunec.compiler.report.ledger_part import LedgerEntryPart, chain, trainings_before_removal
from prunec.compiler.report.low_rank_part import LowRankPart
from prunec.compiler.report.masking_part import MaskingPart
from prunec.compiler.report.method_parts import compression_groups, source_parts
from prunec.compiler.report.report import Report
from prunec.passes.cost import CONVENTION
from prunec.passes.identity import architecture_sha256
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown, known

_NOT_CALIBRATED = Unknown("the pipeline has no step calibrate.")
_NOT_DECOMPOSED = Unknown("no layer was decomposed.")
_NOTHING_PRUNED = Unknown("nothing was pruned.")
_UNKNOWN_TRAINING = Unknown("nothing says how the checkpoint was trained: [model] pretraining in prunec.toml can.")


def assemble(request: Request, outcome: Outcome) -> Report:
    """The report of a compile, with no gates yet."""
    history, exported = outcome.steps.history, outcome.exported
    ledger = tuple(LedgerEntryPart.of(entry) for entry in outcome.steps.ledger)
    pruned, permuted = last_fact(history, Pruned), last_fact(history, Permuted)
    reduced = [step.fact for step in history if isinstance(step.fact, Pruned | Decomposed)]
    runs = _runs(request, outcome)
    report = Report(
        status="PASSED",
        exit_code=0,
        command=request.settings.command,
        target=str(request.target),
        pipeline=str(request.pipeline),
        model=_model(request, history),
        data=_data(request.data),
        macs=_macs(request.dense, outcome.steps.program),
        parameters=_parameters(request.dense, outcome.steps.program),
        size_bytes=network_parts.SizeBytesPart(
            dense_onnx=outcome.dense_bytes, compiled_onnx=exported.compiled_bytes, engine=Unknown("not built yet.")
        ),
        accuracy=_accuracy(request, outcome),
        oracle=network_parts.OraclePart.of(reduced[-1].oracle) if reduced else _NOTHING_PRUNED,
        numerics=network_parts.NumericsPart(onnx_vs_torch_max_relative_error=exported.difference_from_torch),
        latency=Unknown("not measured yet."),
        latency_cpu=Unknown("not measured yet."),
        pretraining=_pretraining(request),
        pruning=_NOTHING_PRUNED if pruned is None else _pruning(request, pruned, history, ledger),
        masking=tuple(MaskingPart.of_fact(fact, request.target) for fact in facts_of(history, Sparsified)),
        permutation=Unknown(NOT_PERMUTED) if permuted is None else network_parts.PermutationPart.of(permuted),
        recovery=_recovery(request, history, ledger),
        runs=runs,
        runs_summary=summarise_runs(runs, outcome.steps.seed_matters),
        controls=tuple(_control(control) for control in outcome.steps.controls),
        steps=tuple(
            network_parts.StepPart.of(fact, name="dense" if fact.step is None else str(fact.step)) for fact in history
        ),
        layers=layer_parts(request, outcome.steps, exported),
        ledger=ledger,
        gates=(),
        engine_request=_engine_request(request),
        engine=Unknown("not built yet."),
        environment=engine_facts.environment_part(),
        extensions=told_by_plug_ins(history),
        plausibility=_plausibility(outcome.steps.plausibility),
        costs=costs_part(outcome.steps.costs),
        calibration=_calibration(request, history),
        sources=source_parts(request.pipeline),
        compression_groups=compression_groups(request.pipeline),
        low_rank=LowRankPart.of_facts(reduced) or _NOT_DECOMPOSED,
    )
    report = engine_facts.with_engine(report, outcome.built)
    report = engine_facts.with_layer_facts(report, outcome.built, outcome.on_target.engine)
    latency_cpu = engine_facts.latency_part(outcome.on_this_cpu)
    report = engine_facts.with_target(report, outcome.on_target).model_copy(update={"latency_cpu": latency_cpu})
    return with_time_asked(report, facts_of(history, Pruned))


def _model(request: Request, history: Sequence[StepFact]) -> network_parts.ModelPart:
    dense = request.dense
    return network_parts.ModelPart.of(
        dense,
        name=request.settings.model_name or None,
        source_sha256=history[0].weights,
        compiled_sha256=history[-1].weights,
        architecture_sha256=architecture_sha256(dense),
        input_shapes=[x.shape[1:] for x in dense.example_inputs],
        inputs=network_parts.input_parts(dense.inputs),
        outputs=dense.output_names,
    )


def _data(data: Data | None) -> training_parts.DataPart | Unknown:
    if data is None:
        return Unknown("no data was given.")
    return training_parts.DataPart.of(
        data,
        name=data.name or None,
        train_images=len(data.train),
        validation_images=len(data.validation),
        test_images=len(data.test),
    )


def _plausibility(plausibility: Plausibility | Unknown) -> training_parts.PlausibilityPart | Unknown:
    return plausibility if isinstance(plausibility, Unknown) else training_parts.PlausibilityPart.of(plausibility)


def _macs(dense: Program, compiled: Program) -> network_parts.MacsPart:
    before, after = dense.macs(), compiled.macs()
    return network_parts.MacsPart(dense=before, compiled=after, speedup=before / max(after, 1), convention=CONVENTION)


def _parameters(dense: Program, compiled: Program) -> network_parts.ParametersPart:
    before, after = dense.parameter_count(), compiled.parameter_count()
    return network_parts.ParametersPart(dense=before, compiled=after, zero_fraction=compiled.zero_fraction())


def _accuracy(request: Request, outcome: Outcome) -> training_parts.AccuracyPart:
    absent = Unknown("the pipeline has no such step." if request.data is not None else "no data was given.")
    values: dict[str, float | Unknown] = dict.fromkeys(ACCURACY_STAGES, absent)
    for step in outcome.steps.history:
        label = "dense" if step.step is None else step.step.kind.accuracy
        values |= {label: step.accuracy} if label else {}
    values |= {"exported": outcome.exported.accuracy, "engine": outcome.on_target.accuracy}
    return training_parts.AccuracyPart(metric=request.objective.metric_name, **values)


def _pretraining(request: Request) -> training_parts.PretrainingPart:
    schedule, optimizer = request.settings.pretraining, request.settings.pretraining_optimizer
    told = _UNKNOWN_TRAINING if optimizer is None else optimizer_title(optimizer)
    own: list[Pretrain] = request.pipeline.of(Pretrain)
    if schedule is None or schedule.epochs is None:
        unknown = _UNKNOWN_TRAINING
        return training_parts.PretrainingPart(
            epochs=unknown, learning_rates=unknown, optimizer=told, by_this_run=unknown
        )
    if not schedule.epochs:
        told = Unknown("the checkpoint has random weights: it was not trained.")
    rates = schedule.trace(schedule.epochs)
    kept = own[0].keep_step if own else None
    return training_parts.PretrainingPart.of(
        schedule, learning_rates=rates, optimizer=told, by_this_run=bool(own), kept_step=kept
    )


def _pruning(
    request: Request, pruned: Pruned, history: Sequence[StepFact], ledger: Sequence[LedgerEntryPart]
) -> network_parts.PruningPart:
    options, dense = pruned.options, request.settings.pretraining
    by_group = {name: 1 - kept / width for name, width, kept in pruned.widths}
    before = trainings_before_removal(chain(ledger))
    return network_parts.PruningPart.of(
        options,
        pruned,
        base=None if dense is None else "pretrained" if dense.epochs else "random",
        structure="filters of coupled groups",
        ratio=by_group if options.ratio_everywhere is None else options.ratio_everywhere,
        criterion=options.decided_by,
        schedule="one-shot" if pruned.rounds == 1 else f"{pruned.rounds} rounds",
        rounding="n_pruned = min(ceil(ratio n), n - 1), kept rounded to the nearest multiple",
        epochs=sum(known(entry.epochs) or 0 for entry in before),
        samples=sum(known(entry.samples) or 0 for entry in chain(ledger) if entry.stage == PruneFilters.name),
        groups=[{"name": name, "width": width, "kept": kept} for name, width, kept in pruned.widths],
        method="plan" if options.plan else None,
        timed=None if pruned.timed is None else timed_part(pruned.timed),
        removed_branches=[branch.name for branch in whole_plan(history).removed_branches],
    )


def _calibration(request: Request, history: Sequence[StepFact]) -> CalibrationPart | Unknown:
    calibrated = last_fact(history, Calibrated)
    if calibrated is not None:
        return CalibrationPart.of_fact(calibrated, request.target)
    aims = [fact.aim for fact in history if fact.step is not None and fact.step.name == Calibrate.name]
    if not aims or aims[-1] is None:
        return _NOT_CALIBRATED
    return Unknown(f"calibrate put no layer on a grid: {aims[-1].reason}.")


def _recovery(
    request: Request, history: Sequence[StepFact], ledger: Sequence[LedgerEntryPart]
) -> training_parts.RecoveryPart | Unknown:
    """All retrainings of what pruning left as one, with the options, the kept epoch and the diagnosis of the last."""
    line = chain(ledger)
    before = [entry for entry in trainings_before_removal(line) if entry.stage == Recover.name]
    facts = facts_of(history, Retraining)[len(before) :]
    if not facts or request.data is None:
        return Unknown("the pipeline has no recovery finetune.")
    fact, options = facts[-1], facts[-1].options
    booked = [entry for entry in line if entry.stage == Recover.name][len(before) :]
    starts = list(accumulate((len(each.curve) for each in facts[:-1]), initial=0))
    parts = list(zip(starts, facts, strict=True))
    return training_parts.RecoveryPart.of(
        options,
        fact,
        epochs=sum(int(known(entry.epochs) or 0) for entry in booked),
        steps=sum(known(entry.steps) or 0 for entry in booked),
        schedule=", then ".join(each.options.schedule for each in facts),
        schedule_reason=fact.schedule_reason or None,
        learning_rates=[(start + epoch, rate) for start, each in parts for epoch, rate in each.learning_rates],
        curve=[replace(record, epoch=start + record.epoch) for start, each in parts for record in each.curve],
        warmup_epochs=options.warmup,
        early=options.early or None,
        optimizer=optimizer_title(options.optimizer),
        optimizer_reason=fact.optimizer_reason or None,
        loss=request.objective.loss_name,
        augmentation=request.data.augment,
        distillation={"temperature": options.distill, "weight": options.distill_weight} if options.distill else None,
        clip_norm=options.clip_norm or None,
        ema=options.ema or None,
        compiled=options.compile,
        seeds=(request.settings.seed,),
        resumed=any(each.resumed for each in facts),
        seconds=sum(each.seconds for each in facts),
        checkpoint=options.keep,
        checkpoint_epoch=starts[-1] + (fact.best_epoch if options.keep == "best" else len(fact.curve)),
    )


def _control(control: ControlRun) -> training_parts.ControlPart:
    runs = tuple(training_parts.RunPart(seed=run.seed, accuracy=run.accuracy) for run in control.seeds)
    summary = summarise_runs(runs, seed_matters=True)
    return training_parts.ControlPart.of(control, accuracy=runs[0].accuracy, runs=runs, summary=summary)


def _runs(request: Request, outcome: Outcome) -> tuple[training_parts.RunPart, ...]:
    seed, further = request.settings.seed, outcome.steps.further_seeds
    accuracy = last_accuracy(outcome.steps.history) if further else outcome.exported.accuracy
    return (
        training_parts.RunPart(seed=seed, accuracy=accuracy),
        *(training_parts.RunPart(seed=run.seed, accuracy=run.accuracy) for run in further),
    )


def summarise_runs(runs: Sequence[training_parts.RunPart], seed_matters: bool) -> training_parts.RunsSummaryPart:
    """Mean and sample standard deviation of the accuracy over the seeds, where these gave different weights."""
    measured = [accuracy for run in runs if (accuracy := known(run.accuracy)) is not None]
    if not measured or len(measured) < len(runs):
        absent = Unknown("the accuracy was not measured for every seed.")
        return training_parts.RunsSummaryPart(mean=absent, standard_deviation=absent)
    mean = sum(measured) / len(measured)
    deviation: float | Unknown = Unknown("one seed only; a deviation needs at least two.")
    if len(measured) > 1 and not seed_matters:
        deviation = Unknown("nothing random in this pipeline depends on the seed: all seeds gave the same weights.")
    elif len(measured) > 1:
        deviation = (sum((accuracy - mean) ** 2 for accuracy in measured) / (len(measured) - 1)) ** 0.5
    return training_parts.RunsSummaryPart(mean=mean, standard_deviation=deviation)


def _engine_request(request: Request) -> engine_parts.EngineRequestPart:
    settings, options = request.settings, request.settings.engine_options
    sizes = {name: str(size_range) for name, size_range in options.ranges.items()}
    latency = engine_parts.LatencyRequestPart(
        batch=settings.latency_batch, runs=settings.latency_runs, threads=settings.threads
    )
    return engine_parts.EngineRequestPart(
        dimensions=sizes, also_for=options.also_for, kind=options.engine, latency=latency
    )


def told_by_plug_ins(history: Sequence[StepFact]) -> dict[str, dict[str, Any]]:
    """Figures of plug-ins' steps and training hooks, by name; a number tells several of one name apart."""
    told = [(fact.step.name, fact.figures) for fact in history if fact.step is not None]
    told += [(hook.name, hook.figures) for fact in facts_of(history, Retraining) for hook in fact.hooks]
    names: dict[str, int] = {}
    result: dict[str, dict[str, Any]] = {}
    for name, figures in told:
        if figures:
            names[name] = number = names.get(name, 0) + 1
            result[f"{name}#{number}" if number > 1 else name] = dict(figures)
    return result
