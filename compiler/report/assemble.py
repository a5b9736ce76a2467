"""The assembly of a report from the request and the facts of a compile, before it is judged."""

import hashlib
from collections.abc import Sequence
from typing import Any

from prunec.calibration.data import Data
from prunec.compiler.facts.outcome import Outcome
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import Permuted, Pruned, StepFact, facts_of, last_accuracy, last_fact
from prunec.compiler.pipeline.own_steps import ACCURACY_STAGES
from prunec.compiler.recovery.recovered import Retraining
from prunec.compiler.report import engine_facts, engine_parts, network_parts, training_parts
from prunec.compiler.report.layer_table import NOT_PERMUTED, layer_parts
from prunec.compiler.report.report import Report
from prunec.passes.cost import CONVENTION
from prunec.passes.criteria.catalogue import criterion_text
from prunec.passes.graphs import operator_name
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown, known

_NOTHING_PRUNED = Unknown("nothing was pruned.")
_UNKNOWN_TRAINING = Unknown("nothing says how the checkpoint was trained: [model] pretraining in prunec.toml can.")


def assemble(request: Request, outcome: Outcome) -> Report:
    """The report of a compile, with no gates yet."""
    history, exported = outcome.steps.history, outcome.exported
    pruned, permuted = last_fact(history, Pruned), last_fact(history, Permuted)
    runs = _runs(request, outcome)
    report = Report(
        status="PASSED",
        exit_code=0,
        command=request.settings.command,
        target=str(request.target),
        pipeline=str(request.pipeline),
        model=_model(request.dense),
        data=_data(request.data),
        macs=_macs(request.dense, outcome.steps.program),
        parameters=_parameters(request.dense, outcome.steps.program),
        size_bytes=network_parts.SizeBytesPart(
            dense_onnx=exported.dense_bytes, compiled_onnx=exported.compiled_bytes, engine=Unknown("not built yet.")
        ),
        accuracy=_accuracy(request, outcome),
        oracle=_NOTHING_PRUNED if pruned is None else network_parts.OraclePart.of(pruned.oracle),
        numerics=network_parts.NumericsPart(onnx_vs_torch_max_relative_error=exported.difference_from_torch),
        latency=Unknown("not measured yet."),
        latency_cpu=Unknown("not measured yet."),
        pretraining=_pretraining(request),
        pruning=_NOTHING_PRUNED if pruned is None else _pruning(request, pruned),
        permutation=Unknown(NOT_PERMUTED) if permuted is None else network_parts.PermutationPart.of(permuted),
        recovery=_recovery(request, history),
        runs=runs,
        runs_summary=summarise_runs(runs, outcome.steps.seed_matters),
        controls=tuple(training_parts.ControlPart.of(control) for control in outcome.steps.controls),
        steps=tuple(
            network_parts.StepPart.of(fact, name="dense" if fact.step is None else str(fact.step)) for fact in history
        ),
        layers=layer_parts(request, outcome.steps, exported),
        gates=(),
        engine_request=_engine_request(request),
        engine=Unknown("not built yet."),
        environment=engine_facts.environment_part(),
        extensions=told_by_plug_ins(history),
    )
    report = engine_facts.with_engine(report, outcome.built)
    report = engine_facts.with_layer_facts(report, outcome.built, outcome.on_target.engine)
    latency_cpu = engine_facts.latency_part(outcome.on_this_cpu)
    return engine_facts.with_target(report, outcome.on_target).model_copy(update={"latency_cpu": latency_cpu})


def _model(dense: Program) -> network_parts.ModelPart:
    return network_parts.ModelPart.of(
        dense,
        source_sha256=dense.origin,
        architecture_sha256=architecture_sha256(dense),
        input_shapes=[x.shape[1:] for x in dense.example_inputs],
    )


def architecture_sha256(program: Program) -> str:
    """SHA-256 of the graph: operators, their arguments and the shapes of all tensors, no weights."""
    lines = [
        f"{node.op} {operator_name(node.target)} {node.args} {node.kwargs} {node.meta.get('shapes')}"
        for node in program.graph.nodes
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _data(data: Data | None) -> training_parts.DataPart | Unknown:
    if data is None:
        return Unknown("no data was given.")
    return training_parts.DataPart.of(
        data, train_images=len(data.train), validation_images=len(data.validation), test_images=len(data.test)
    )


def _macs(dense: Program, compiled: Program) -> network_parts.MacsPart:
    before, after = dense.macs(), compiled.macs()
    return network_parts.MacsPart(dense=before, compiled=after, speedup=before / max(after, 1), convention=CONVENTION)


def _parameters(dense: Program, compiled: Program) -> network_parts.ParametersPart:
    before, after = dense.parameter_count(), compiled.parameter_count()
    zeros = sum(int((p == 0).sum()) for p in compiled.module.parameters())
    return network_parts.ParametersPart(dense=before, compiled=after, zero_fraction=zeros / max(after, 1))


def _accuracy(request: Request, outcome: Outcome) -> training_parts.AccuracyPart:
    absent = Unknown("the pipeline has no such step." if request.data is not None else "no data was given.")
    values: dict[str, float | Unknown] = dict.fromkeys(ACCURACY_STAGES, absent)
    for step in outcome.steps.history:
        label = "dense" if step.step is None else step.step.kind.accuracy
        values |= {label: step.accuracy} if label else {}
    values |= {"exported": outcome.exported.accuracy, "engine": outcome.on_target.accuracy}
    return training_parts.AccuracyPart(metric=request.objective.metric_name, **values)


def _pretraining(request: Request) -> training_parts.PretrainingPart:
    schedule = request.settings.pretraining
    if schedule is None or schedule.epochs is None:
        return training_parts.PretrainingPart(epochs=_UNKNOWN_TRAINING, learning_rates=_UNKNOWN_TRAINING)
    return training_parts.PretrainingPart.of(schedule, learning_rates=schedule.trace(schedule.epochs))


def _pruning(request: Request, pruned: Pruned) -> network_parts.PruningPart:
    options, dense = pruned.options, request.settings.pretraining
    by_group = {name: 1 - kept / width for name, width, kept in pruned.widths}
    return network_parts.PruningPart.of(
        options,
        pruned,
        base=None if dense is None else "pretrained" if dense.epochs else "random",
        structure="filters of coupled groups",
        ratio=options.ratio if isinstance(options.ratio, float) else by_group,
        criterion=criterion_text(options.criterion),
        schedule="one-shot" if pruned.rounds == 1 else f"{pruned.rounds} rounds",
        rounding="n_pruned = min(ceil(ratio n), n - 1), kept rounded to the nearest multiple",
        epochs=0,
        groups=[{"name": name, "width": width, "kept": kept} for name, width, kept in pruned.widths],
    )


def _recovery(request: Request, history: Sequence[StepFact]) -> training_parts.RecoveryPart | Unknown:
    fact = last_fact(history, Retraining)
    if fact is None or request.data is None:
        return Unknown("the pipeline has no recovery finetune.")
    options = fact.options
    return training_parts.RecoveryPart.of(
        options,
        fact,
        epochs=len(fact.curve),
        steps=fact.spent.steps,
        schedule_reason=fact.schedule_reason or None,
        warmup_epochs=options.warmup,
        early=options.early or None,
        optimizer="SGD",
        loss=request.objective.loss_name,
        augmentation=request.data.augment,
        distillation={"temperature": options.distill, "weight": options.distill_weight} if options.distill else None,
        clip_norm=options.clip_norm or None,
        ema=options.ema or None,
        compiled=options.compile,
        seeds=(request.settings.seed,),
        checkpoint=options.keep,
        checkpoint_epoch=fact.best_epoch if options.keep == "best" else len(fact.curve),
    )


def _runs(request: Request, outcome: Outcome) -> tuple[training_parts.RunPart, ...]:
    seed, further = request.settings.seed, outcome.steps.further_seeds
    if not further:
        return (training_parts.RunPart(seed=seed, accuracy=outcome.exported.accuracy),)
    accuracies = {seed: last_accuracy(outcome.steps.history), **further}
    return tuple(training_parts.RunPart(seed=seed, accuracy=accuracy) for seed, accuracy in accuracies.items())


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
    options = request.settings.engine_options
    sizes = {name: str(size_range) for name, size_range in options.ranges.items()}
    return engine_parts.EngineRequestPart(dimensions=sizes, also_for=options.also_for, kind=options.engine)


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
