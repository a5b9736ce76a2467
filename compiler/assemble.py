"""From the state of a finished compile to its report."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prunec.calibration.splits import steps_per_epoch
from prunec.compiler import report as r
from prunec.compiler.assemble_layers import NOT_PERMUTED, report_layers
from prunec.compiler.compilation import Compilation
from prunec.compiler.environment import environment
from prunec.compiler.gates import (
    GateCheck,
    accuracy_gate,
    engine_gate,
    exit_code,
    gate_reasons,
    numeric_gate,
    sparsity_gate,
    speedup_gate,
)
from prunec.compiler.pipeline import Pipeline
from prunec.compiler.stage_names import STAGES
from prunec.passes.cost import CONVENTION
from prunec.passes.graphs import operator_name
from prunec.passes.program import Program
from prunec.runtime.engines.building import EngineInfo
from prunec.runtime.latency import LatencyComparison


def assemble(compilation: Compilation, pipeline: Pipeline) -> r.Report:
    """The report; its status and exit code follow from the gates."""
    reasons = dict(compilation.reasons)
    layers = report_layers(compilation, reasons)
    checks = _gates(compilation, layers, reasons)
    code = exit_code(checks)
    runs = _runs(compilation)
    runs_summary, runs_reasons = r.summarise_runs(runs)
    fields: dict[str, Any] = {
        "model": _model(compilation.dense),
        "data": _data(compilation, reasons),
        "macs": _macs(compilation),
        "parameters": _parameters(compilation),
        "size_bytes": _sizes(compilation, reasons),
        "accuracy": _accuracy(compilation, reasons),
        "oracle": _oracle(compilation, reasons),
        "numerics": r.Numerics(onnx_vs_torch_max_relative_error=compilation.onnx_vs_torch),
        "latency": _latency(compilation, compilation.latency, "latency", reasons),
        "latency_cpu": _latency(compilation, compilation.latency_cpu, "latency_cpu", reasons),
        "pretraining": _pretraining(compilation, reasons),
        "pruning": _pruning(compilation, reasons),
        "permutation": _permutation(compilation, reasons),
        "recovery": _recovery(compilation, reasons),
        "steps": _steps(compilation, reasons),
        "layers": layers,
        "engine_request": _engine_request(compilation),
        "engine": _engine(compilation),
        "environment": _environment(compilation, reasons),
    }
    return r.Report(
        schema=1,
        status="PASSED" if code == 0 else "FAILED",
        exit_code=code,
        command=compilation.settings.command,
        target=str(compilation.target),
        pipeline=str(pipeline),
        runs=runs,
        runs_summary=runs_summary,
        controls=tuple(r.Control(**asdict(control)) for control in compilation.controls),
        gates=tuple(check.gate for check in checks),
        reasons={**reasons, **runs_reasons, **gate_reasons(checks)},
        **fields,
    )


def _gates(compilation: Compilation, layers: Sequence[r.Layer], reasons: dict[str, str]) -> list[GateCheck]:
    settings, accuracy = compilation.settings, compilation.accuracy
    checks = [numeric_gate(compilation.onnx_vs_torch)]
    if settings.build_engine:
        checks.append(engine_gate(compilation.engine is not None))
    if settings.max_drop_points is not None:
        final = accuracy.get("engine", accuracy.get("exported"))
        reason = reasons.get("accuracy", reasons.get("accuracy.exported"))
        checks.append(accuracy_gate(settings.max_drop_points, accuracy.get("dense"), final, reason))
    if settings.min_speedup is not None:
        measured = compilation.latency.speedup if compilation.latency is not None else None
        checks.append(speedup_gate(settings.min_speedup, measured, reasons.get("latency")))
    if settings.require_sparse_percent is not None:
        valid = sum(layer.sparsity is not None and layer.sparsity.valid for layer in layers)
        checks.append(sparsity_gate(settings.require_sparse_percent, valid, len(layers)))
    return [check.allowing_unknown() for check in checks] if settings.allow_unknown else checks


def _model(dense: Program) -> r.Model:
    return r.Model(
        source_sha256=dense.origin,
        architecture_sha256=architecture_sha256(dense),
        input_shapes=tuple(tuple(x.shape[1:]) for x in dense.example_inputs),
        lost_in_capture=dense.lost_in_capture,
        batch_is_dynamic=dense.batch_is_dynamic,
    )


def architecture_sha256(program: Program) -> str:
    """sha256 of the graph: operators, their arguments and the shapes of all tensors, no weights."""
    lines = [
        f"{node.op} {operator_name(node.target)} {node.args} {node.kwargs} {node.meta.get('shapes')}"
        for node in program.graph.nodes
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _data(compilation: Compilation, reasons: dict[str, str]) -> r.DataInfo | None:
    data = compilation.data
    if data is None:
        for part in ("data", "accuracy"):
            reasons[part] = "no data was given."
        return None
    return r.DataInfo(
        sha256=data.sha256,
        preprocessing_sha256=data.preprocessing_sha256,
        train_images=len(data.train),
        validation_images=len(data.validation),
        test_images=len(data.test),
    )


def _macs(compilation: Compilation) -> r.Macs:
    dense, compiled = compilation.dense.macs(), compilation.program.macs()
    return r.Macs(dense=dense, compiled=compiled, speedup=dense / max(compiled, 1), convention=CONVENTION)


def _parameters(compilation: Compilation) -> r.Parameters:
    program = compilation.program
    zeros = sum(int((p == 0).sum()) for p in program.module.parameters())
    count = program.parameter_count()
    return r.Parameters(dense=compilation.dense.parameter_count(), compiled=count, zero_fraction=zeros / max(count, 1))


def _sizes(compilation: Compilation, reasons: dict[str, str]) -> r.SizeBytes:
    sizes = compilation.size_bytes
    if "engine" not in sizes:
        reasons["size_bytes.engine"] = reasons.get("engine", "")
    return r.SizeBytes(dense_onnx=sizes["dense_onnx"], compiled_onnx=sizes["compiled_onnx"], engine=sizes.get("engine"))


def _accuracy(compilation: Compilation, reasons: dict[str, str]) -> r.Accuracy:
    if compilation.data is not None:
        for stage in STAGES:
            if stage not in compilation.accuracy and f"accuracy.{stage}" not in reasons:
                reasons[f"accuracy.{stage}"] = (
                    reasons.get("engine", reasons.get("latency", ""))
                    if stage == "engine"
                    else "the pipeline has no such step."
                )
    values = {stage: compilation.accuracy.get(stage) for stage in STAGES}
    return r.Accuracy(metric=compilation.objective.metric_name, **values)


def _oracle(compilation: Compilation, reasons: dict[str, str]) -> r.Oracle | None:
    if compilation.pruned is None:
        reasons["oracle"] = "nothing was pruned."
        return None
    found = compilation.pruned.oracle
    return r.Oracle(
        exact=found.exact,
        max_relative_error=found.max_relative_error,
        masked_max_relative_error=found.masked_max_relative_error,
        inexact_groups=tuple(found.inexact_groups),
    )


def _latency(
    compilation: Compilation, found: LatencyComparison | None, name: str, reasons: dict[str, str]
) -> r.Latency | None:
    if found is None:
        return None
    reasons.pop(name, None)
    settings = compilation.settings
    threads = None if name == "latency" and compilation.target.is_nvidia else settings.threads
    return latency_part(found, settings.latency_batch, threads)


def latency_part(found: LatencyComparison, batch: int, threads: int | None) -> r.Latency:
    """A comparison of latencies as the report tells of it; of a GPU there are no threads."""
    return r.Latency(
        dense_ms=r.Percentiles(**asdict(found.dense)),
        compiled_ms=r.Percentiles(**asdict(found.compiled)),
        speedup=found.speedup,
        speedup_interval=found.speedup_interval,
        threads=threads,
        batch=batch,
        runs=found.runs,
    )


def _pretraining(compilation: Compilation, reasons: dict[str, str]) -> r.Pretraining:
    schedule = compilation.settings.pretraining
    if schedule is None or schedule.epochs is None:
        reasons["pretraining"] = "nothing says how the checkpoint was trained: [model] pretraining in prunec.toml can."
        return r.Pretraining(epochs=None, learning_rates=None)
    trace = tuple((float(epoch), rate) for epoch, rate in schedule.trace(schedule.epochs))
    return r.Pretraining(epochs=schedule.epochs, learning_rates=trace)


def _pruning(compilation: Compilation, reasons: dict[str, str]) -> r.Pruning | None:
    pruned = compilation.pruned
    if pruned is None:
        reasons["pruning"] = "nothing was pruned."
        return None
    options = pruned.options
    groups = tuple(r.PruningGroup(name=name, width=width, kept=kept) for name, width, kept in pruned.widths)
    dense = compilation.settings.pretraining
    return r.Pruning(
        base=None if dense is None else "pretrained" if dense.epochs else "random",
        structure="filters of coupled groups",
        ratio=options.ratio if isinstance(options.ratio, float) else {g.name: 1 - g.kept / g.width for g in groups},
        criterion=options.criterion,
        schedule="one-shot" if pruned.rounds == 1 else f"{pruned.rounds} rounds",
        rounding="n_pruned = min(ceil(ratio n), n - 1), kept rounded to the nearest multiple",
        round_to=options.round_to,
        epochs=0,
        samples=0,
        groups=groups,
    )


def _recovery(compilation: Compilation, reasons: dict[str, str]) -> r.Recovery | None:
    if compilation.recovered is None or compilation.data is None:
        reasons["recovery"] = "the pipeline has no recovery finetune."
        return None
    options, result = compilation.recovered.options, compilation.recovered.result
    if result.trainability_accuracy is None:
        for name in ("trainability_accuracy", "trainability_epochs"):
            reasons[f"recovery.{name}"] = result.trainability_reason or ""
    return r.Recovery(
        epochs=options.epochs,
        steps=options.epochs * steps_per_epoch(compilation.data.train, options.batch_size),
        schedule=options.schedule,
        schedule_reason=compilation.recovered.schedule_reason or None,
        learning_rates=tuple((float(epoch), rate) for epoch, rate in result.learning_rates),
        warmup_epochs=options.warmup,
        early=options.early or None,
        optimizer="SGD",
        momentum=options.momentum,
        nesterov=options.nesterov,
        weight_decay=options.weight_decay,
        batch_size=options.batch_size,
        loss=compilation.objective.loss_name,
        augmentation=compilation.data.augment,
        distillation=r.Distillation(temperature=options.distill, weight=options.distill_weight)
        if options.distill
        else None,
        label_smoothing=options.label_smoothing,
        clip_norm=options.clip_norm or None,
        ema=options.ema or None,
        precision=options.precision,
        accumulate=options.accumulate,
        channels_last=options.channels_last,
        compiled=options.compile,
        processes=result.processes,
        sync_batchnorm=options.sync_batchnorm,
        resumed=result.resumed,
        seeds=(compilation.settings.seed,),
        curve=tuple(
            r.CurvePoint(
                epoch=p.epoch,
                learning_rate=p.learning_rate,
                train_loss=p.train_loss,
                train=p.train,
                validation=p.validation,
                test=p.test,
                seconds=p.seconds,
            )
            for p in result.curve
        ),
        trainability_accuracy=result.trainability_accuracy,
        trainability_epochs=result.trainability_epochs,
        diagnosis=str(compilation.recovered.diagnosis),
        checkpoint=options.keep,
        checkpoint_epoch=result.best_epoch if options.keep == "best" else options.epochs,
        seconds=result.seconds,
    )


def _runs(compilation: Compilation) -> tuple[r.Run, ...]:
    seed = compilation.settings.seed
    if not compilation.further_seeds:
        return (r.Run(seed=seed, accuracy=compilation.accuracy.get("exported")),)
    accuracies = {seed: compilation.final_accuracy, **compilation.further_seeds}
    return tuple(r.Run(seed=seed, accuracy=accuracy) for seed, accuracy in accuracies.items())


def _steps(compilation: Compilation, reasons: dict[str, str]) -> tuple[r.Step, ...]:
    steps = tuple(r.Step(**asdict(step)) for step in compilation.steps)
    unchanged = "the step leaves the network's function as it was: see the step before."
    whys = {
        "steps.*.predicted_ms": "some layer's roofline isn't known.",
        "steps.*.accuracy": unchanged if compilation.data is not None else "no data was given.",
    }
    reasons.update(r.needed_reasons(whys, steps, "steps"))
    return steps


def _engine_request(compilation: Compilation) -> r.EngineRequest:
    options = compilation.settings.engine_options
    return r.EngineRequest(
        dimensions={name: str(sizes) for name, sizes in options.ranges.items()}, also_for=options.also_for
    )


def _engine(compilation: Compilation) -> r.Engine | None:
    return None if compilation.engine is None else engine_part(compilation.engine)


def engine_part(engine: EngineInfo) -> r.Engine:
    """A built engine as the report tells of it."""
    return r.Engine(
        kind=engine.kind,
        path=engine.path.name,
        builder=engine.builder,
        gpu=engine.gpu,
        built_ahead_of_time=engine.built_ahead_of_time,
        compute_capabilities=tuple(f"{major}.{minor}" for major, minor in engine.compute_capabilities),
        dimensions={name: str(sizes) for name, sizes in engine.ranges.items()},
        run_on_device=engine.run_on_device,
        notes=engine.notes,
    )


def _environment(compilation: Compilation, reasons: dict[str, str]) -> r.Environment:
    measured = compilation.on_device
    if measured is None or measured.gpu is None:
        reasons["environment.gpu_state"] = "nothing was measured on a GPU." if measured is None else measured.gpu_reason
    return environment(measured.gpu if measured is not None else None)


def _permutation(compilation: Compilation, reasons: dict[str, str]) -> r.Permutation | None:
    permuted = compilation.permuted
    if permuted is None:
        reasons["permutation"] = NOT_PERMUTED
        return None
    return r.Permutation(refused=permuted.refused, cut_short=permuted.cut_short)
