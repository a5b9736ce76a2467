"""The course of a compile as a report tells it: its steps, its ledger and its retraining, held against each other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.commands.verify_claims import Claim, is_own, is_this_version, pipeline_of, rule
from prunec.compiler.facts.ledger import PRETRAINING, RANDOM
from prunec.compiler.pipeline.own_steps import OWN_STEPS
from prunec.compiler.pipeline.pipeline import Step
from prunec.compiler.recovery.optimizer_kinds import optimizer_title
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD
from prunec.compiler.report.ledger_part import LedgerEntryPart, MacsPerSamplePart, chain
from prunec.compiler.report.network_parts import AimPart, StepPart
from prunec.compiler.report.nulls import NOT_RECORDED
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import RecoveryPart
from prunec.passes.allocation.budgets import SAVED
from prunec.passes.figures import plain_figures
from prunec.passes.low_rank import Decompose
from prunec.passes.options import changed_options, resolved_options
from prunec.passes.permute import Permute
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown, known
from prunec.runtime.devices import ON_GRIDS

#: Options that are filled in while a step runs.
_CHOSEN = ("none", "auto")
#: What the aims of prunec's own steps count.
_COUNTED = {
    PruneFilters.name: (*SAVED.values(), "filters removed"),
    Decompose.name: (SAVED["macs"], "layers decomposed"),
    Recover.name: ("epochs trained",),
    Calibrate.name: tuple(f"layers in {precision.upper()}" for precision in ON_GRIDS),
}
#: Steps that leave the zeros of the weights where they are, but for their order.
_KEEPING_ZEROS = (Permute.name, "re-estimate-batchnorm")
#: Steps that run every sample through the network once.
_FORWARD_ONCE = ("re-estimate-batchnorm", Calibrate.name)
#: Field of `recovery` -> option of the last retraining in the ledger.
_OF_OPTIONS = {
    **{name: name for name in ("momentum", "nesterov", "betas", "eps", "weight_decay", "decay_norms_and_biases")},
    **{name: name for name in ("batch_size", "loss", "processes", "label_smoothing", "precision", "accumulate")},
    **{name: name for name in ("channels_last", "sync_batchnorm")},
    **{"augmentation": "augment", "warmup_epochs": "warmup", "compiled": "compile", "checkpoint": "keep"},
}
#: The same where 0 or an empty text stands for none.
_OF_OPTIONS_OR_NONE = ("ema", "clip_norm", "early")


@dataclass(frozen=True)
class _Stage:
    """A step of the pipeline, with its row, the row before it and its entry in the ledger."""

    path: str
    step: Step
    row: StepPart
    before: StepPart
    entry: LedgerEntryPart | None


def course_claims(report: Report) -> Iterator[Claim]:
    """The rows of steps and of the ledger, which lead from the dense network to the compiled one."""
    yield from _ends(report)
    yield from _entries(report)
    for stage in _stages(report):
        if stage.step.name in OWN_STEPS:
            yield from _row_claims(report, stage)
            yield from _entry_claims(report, stage)
    if not isinstance(report.recovery, Unknown):
        yield from _recovery_claims(report, report.recovery)


def _ends(report: Report) -> Iterator[Claim]:
    if isinstance(report.steps, Unknown) or not report.steps:
        yield Claim("steps", report.steps, None)
        return
    first, last = report.steps[0], report.steps[-1]
    yield Claim("steps.0.macs", first.macs, report.macs.dense)
    yield Claim(f"steps.{len(report.steps) - 1}.macs", last.macs, report.macs.compiled)
    yield Claim("steps.0.accuracy", first.accuracy, report.accuracy.dense)
    if (pipeline := pipeline_of(report)) is not None:
        yield Claim("steps", tuple(step.name for step in report.steps), ("dense", *map(str, pipeline.on_dense)))
        labels = {step.kind.accuracy: row for step, row in zip(pipeline.on_dense, report.steps[1:], strict=False)}
        for label in labels.keys() - {""}:
            yield Claim(f"accuracy.{label}", getattr(report.accuracy, label), labels[label].accuracy)


def _entries(report: Report) -> Iterator[Claim]:
    """What holds of the ledger as a whole."""
    if isinstance(report.ledger, Unknown):
        yield Claim("ledger", report.ledger, None)
        return
    if line := chain(report.ledger):
        yield Claim("ledger, first weights", line[0].weights_out, report.model.source_sha256)
        yield Claim("ledger, last weights", line[-1].weights_out, report.model.compiled_sha256)
    if (pipeline := pipeline_of(report)) is not None:
        stages = [entry.stage for entry in _main(report)]
        yield Claim("ledger, stages", stages, [PRETRAINING, *(step.name for step in pipeline.on_dense)])
        for options, entry in zip(pipeline.of(Pretrain), report.ledger, strict=False):
            yield from _pretraining_claims(report, options, entry)
    left: set[object] = set()
    data = known(report.data)
    for number, entry in enumerate(report.ledger):
        path = f"ledger.{number}"
        if entry.weights_out is None:
            yield rule(f"{path}.weights_in are those of a stage before", entry.weights_in in left)
        left.add(entry.weights_out)
        yield rule(
            f"{path} trained or removed nothing beside the run", entry.weights_out is not None or not entry.removed
        )
        if isinstance(entry.data, str) and data is not None:
            yield Claim(f"{path}.data", entry.data, data.sha256)
        if entry.run not in ("", *(control.name for control in report.controls)) and len(report.runs) == 1:
            yield Claim(f"{path}.run", entry.run, "")


def _pretraining_claims(report: Report, options: Pretrain, entry: LedgerEntryPart) -> Iterator[Claim]:
    """What is told of the training of a dense network that the run trained itself."""
    told = report.pretraining
    yield Claim("pretraining.by_this_run", told.by_this_run, True)
    yield Claim("pretraining.epochs", told.epochs, float(options.epochs))
    yield Claim("pretraining.kept_step", told.kept_step, options.keep_step)
    yield Claim("ledger.0.epochs", entry.epochs, float(options.epochs))
    yield Claim("ledger.0.weights_in", entry.weights_in, RANDOM)
    yield Claim("ledger.0.samples are told", bool(entry.samples), bool(options.epochs))


def _main(report: Report) -> list[LedgerEntryPart]:
    """The entries of the run itself, but for work beside it."""
    ledger = known(report.ledger) or ()
    return [entry for entry in ledger if not entry.run and entry.weights_out is not None]


def _stages(report: Report) -> list[_Stage]:
    pipeline, rows, entries = pipeline_of(report), known(report.steps) or (), _main(report)[1:]
    if pipeline is None or len(rows) != len(pipeline.on_dense) + 1:
        return []
    steps = pipeline.on_dense
    told = entries if len(entries) == len(steps) else [None] * len(steps)
    return [
        _Stage(f"steps.{number}", step, row, before, entry)
        for number, (step, row, before, entry) in enumerate(zip(steps, rows[1:], rows[:-1], told, strict=True), start=1)
    ]


def _row_claims(report: Report, stage: _Stage) -> Iterator[Claim]:
    """The row of one of prunec's own steps."""
    path, row, before = stage.path, stage.row, stage.before
    if stage.step.name in (PruneFilters.name, Decompose.name):
        is_bound = not isinstance(stage.step.options, Decompose) or stage.step.options.rank is None
        yield rule(f"{path}.macs <= those before", row.macs <= before.macs or not is_bound)
    else:
        yield Claim(f"{path}.macs", row.macs, before.macs)
    if stage.step.name in _KEEPING_ZEROS:
        yield Claim(f"{path}.nonzero_weights", row.nonzero_weights, before.nonzero_weights)
    if stage.step.name == Sparsify.name:
        yield rule(f"{path}.nonzero_weights <= those before", row.nonzero_weights <= before.nonzero_weights)
    if isinstance(row.aim, Unknown):
        return
    counted = _counted(stage.step)
    yield Claim(f"{path}.aim is told", row.aim is not None, bool(counted))
    if row.aim is not None and counted:
        yield rule(f"{path}.aim.what is {row.aim.what!r}", row.aim.what in counted)
        yield from _aim_claims(report, stage, row.aim)


def _counted(step: Step) -> tuple[str, ...]:
    """What the aim of one of prunec's own steps may count; nothing where it has none."""
    return (step.options.rule.pattern.counted,) if isinstance(step.options, Sparsify) else _COUNTED.get(step.name, ())


def _aim_claims(report: Report, stage: _Stage, aim: AimPart) -> Iterator[Claim]:
    path, options = f"{stage.path}.aim", stage.step.options
    if isinstance(options, Recover):
        trained = NOT_RECORDED if stage.entry is None else stage.entry.epochs
        yield Claim(f"{path}.got", trained, aim.got)
        yield rule(f"{path}.asked is {options.epochs}, or what was trained", aim.asked in (options.epochs, aim.got))
        yield Claim(f"{path}.reason", aim.reason, "")
    if isinstance(options, Sparsify | Calibrate):
        if not isinstance(options, Sparsify) or options.rule.pattern.n_of_m is not None:
            yield rule(f"{path}.got <= asked", aim.got <= aim.asked)  # of weights whole units go, which may be more
        yield Claim(f"{path}.reason is told", bool(aim.reason), aim.got < aim.asked)
    pruning, pipeline = known(report.pruning), pipeline_of(report)
    is_alone = pipeline is not None and len(pipeline.of(PruneFilters)) == 1
    if isinstance(options, PruneFilters) and not options.chooses_widths and pruning is not None and is_alone:
        removed = sum(group.width - group.kept for group in pruning.groups)
        yield Claim(f"{path}.got", aim.got, float(removed))
    if isinstance(options, PruneFilters | Decompose) and options.speedup is not None:
        yield Claim(f"{path}.asked", aim.asked, stage.before.macs * (1 - 1 / options.speedup))
        yield Claim(f"{path}.got", aim.got, float(stage.before.macs - stage.row.macs))


def _entry_claims(report: Report, stage: _Stage) -> Iterator[Claim]:
    """The entry of one of prunec's own steps in the ledger."""
    entry, data = stage.entry, known(report.data)
    if entry is None:
        return
    path, samples, macs = f"ledger, {stage.path}", known(entry.samples), known(entry.macs_per_sample)
    for name, value in _followed(report, stage.step).items():
        yield Claim(f"{path}.options.{name}", entry.options.get(name, NOT_RECORDED), value)
    if report.runs:
        own = entry.options.get("seed")
        yield Claim(f"{path}.seed", entry.seed, own if isinstance(own, int) else report.runs[0].seed)
    removes = stage.row.macs < stage.before.macs
    yield rule(f"{path}.removed where MACs are gone", entry.removed or not removes)
    if stage.step.name in _KEEPING_ZEROS:
        yield Claim(f"{path}.removed", entry.removed, False)
    yield Claim(f"{path}.data is told", entry.data is not None, bool(samples))
    yield Claim(f"{path}.split is told", entry.split is not None, bool(samples))
    if samples is not None and data is not None and "samples" in entry.options:
        yield rule(f"{path}.samples are not more than asked for", samples <= entry.options["samples"])
    if isinstance(stage.step.options, Recover):
        yield from _training_claims(report, stage, entry, path)
        return
    for field, value in (("epochs", 0.0), ("steps", 0), ("learning_rates", ())):
        yield Claim(f"{path}.{field}", getattr(entry, field), value)
    if macs is not None and (not samples or stage.step.name in _FORWARD_ONCE):
        forward = stage.before.macs if samples else 0.0
        yield Claim(f"{path}.macs_per_sample", macs, _macs(forward))


def _macs(forward: float, backward: float = 0.0, teacher: float = 0.0) -> MacsPerSamplePart:
    return MacsPerSamplePart(forward=forward, backward=backward, teacher=teacher, regulariser=0.0)


def _training_claims(report: Report, stage: _Stage, entry: LedgerEntryPart, path: str) -> Iterator[Claim]:
    options, data, macs = entry.options, known(report.data), stage.before.macs
    epochs, steps, samples = known(entry.epochs), known(entry.steps), known(entry.samples)
    rates = known(entry.learning_rates)
    if rates and epochs:
        yield Claim(f"{path}.learning_rates, end", rates[-1].end, epochs)
    if stage.step.options.hooks:
        return  # what hooks hold out, run through and mask, only they know
    yield Claim(f"{path}.removed", entry.removed, False)
    batch = options.get("batch_size")
    if steps and epochs and isinstance(batch, int) and data is not None:
        yield rule(f"{path}.steps are as many in every epoch", steps % int(epochs) == 0)
        yield Claim(f"{path}.samples", samples, steps * min(batch, data.train_images))
        yield rule(f"{path}.samples are not more than the data's", (samples or 0) <= epochs * data.train_images + steps)
    teacher = report.macs.dense if options.get("distill") else 0.0
    yield Claim(f"{path}.macs_per_sample", entry.macs_per_sample, _macs(macs, BACKWARD_OVER_FORWARD * macs, teacher))


def _followed(report: Report, step: Step) -> Mapping[str, Any]:
    """The options of a step that the ledger must have: those that the pipeline states, and defaults of this version."""
    values = plain_figures(resolved_options(step.options).values)
    stated = values if is_this_version(report) else changed_options(step.options)
    return {name: value for name, value in values.items() if name in stated and value not in _CHOSEN}


def _recovery_claims(report: Report, recovery: RecoveryPart) -> Iterator[Claim]:
    curve = recovery.curve
    yield Claim("recovery.epochs", recovery.epochs, len(curve))
    yield Claim("recovery.curve.*.epoch", [point.epoch for point in curve], list(range(1, len(curve) + 1)))
    if report.runs:
        yield Claim("recovery.seeds", recovery.seeds, (report.runs[0].seed,))
    stages = [stage for stage in _stages(report) if isinstance(stage.step.options, Recover)]
    trainings = [stage.entry for stage in stages if stage.entry is not None]
    if not trainings or not is_own(pipeline_of(report)):
        return
    followed = trainings[-1].options
    for field, name in _OF_OPTIONS.items():
        yield _mirrored(recovery, field, followed.get(name, NOT_RECORDED))
    for field in _OF_OPTIONS_OR_NONE:
        yield _mirrored(recovery, field, followed.get(field, NOT_RECORDED) or "none")
    if isinstance(optimizer := followed.get("optimizer"), str):
        yield Claim("recovery.optimizer", recovery.optimizer, optimizer_title(optimizer))
    if len(trainings) == 1:
        yield Claim("recovery.steps", recovery.steps, trainings[0].steps)
        yield Claim("recovery.schedule", recovery.schedule, followed.get("schedule"))
        yield from _kept_claims(recovery)


def _mirrored(recovery: RecoveryPart, field: str, value: object) -> Claim:
    told = getattr(recovery, field) if field in recovery.model_fields_set else NOT_RECORDED
    told = list(told) if isinstance(told, tuple) else told
    return Claim(
        f"recovery.{field}", NOT_RECORDED if value == NOT_RECORDED else told, None if value == "none" else value
    )


def _kept_claims(recovery: RecoveryPart) -> Iterator[Claim]:
    """The epoch that was kept: the last, or the latest of the best on the validation data."""
    last, curve = len(recovery.curve), recovery.curve
    best = max(curve, key=lambda point: (point.validation, point.epoch)).epoch if curve else last
    yield Claim("recovery.checkpoint_epoch", recovery.checkpoint_epoch, best if recovery.checkpoint == "best" else last)
