"""The run card of a report: of its run, of one of its seeds, or of one of its control arms."""

from collections.abc import Sequence
from typing import Any

from prunec.compiler.facts.ledger import PRETRAINING
from prunec.compiler.fairness.chain_stages import ChainStages, changes, epochs_of, rates_of
from prunec.compiler.fairness.entry_places import NOWHERE, UNDECLARED
from prunec.compiler.fairness.run_card import (
    FILTERS,
    OWN_TRAINING,
    RANDOM_WEIGHTS,
    RANKS,
    SCRATCH,
    Accuracy,
    Latency,
    Options,
    RunCard,
    Stage,
)
from prunec.compiler.fairness.training_options import TrainingOptions, in_words
from prunec.compiler.fairness.unrecorded import card_without_ledger
from prunec.compiler.report.ledger_part import LedgerEntryPart, chain
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import ControlPart, RunPart, RunsSummaryPart
from prunec.passes.allocation.goals import GOALS
from prunec.passes.places import BASE, COMPRESSION, METHOD, PRUNING, RETRAINING, TASK
from prunec.passes.unknown import known

#: One epoch of training costs a forward pass, and a backward one of twice its operations.
_TRAINING_OVER_FORWARD = 3
_NOTHING = "none"


def report_card(report: Report, name: str) -> RunCard:
    """The card of a report's run."""
    summary = report.runs_summary
    measured_time = {"latency": _latency(report)}
    common = _common(report) | measured_time | {"name": name, "accuracy": _accuracy(report.runs, summary)}
    ledger = known(report.ledger)
    if ledger is None:
        return RunCard.model_validate(card_without_ledger(report) | common)
    entries = chain(ledger)
    zeros, recovery = known(report.parameters.zero_fraction), known(report.recovery)
    trainability = None if recovery is None else known(recovery.trainability_accuracy)
    measured = {
        "speedup": report.macs.speedup,
        "zero_fraction": zeros,
        "trainability_accuracy": trainability,
        "kept_magnitude": _kept_magnitude(report),
    }
    return RunCard.model_validate(common | _of_chain(report, entries) | measured)


def arm_cards(report: Report, name: str) -> list[RunCard]:
    """The cards of a report's control arms, named after their run: "NAME: ARM"."""
    return [_arm_card(report, name, control) for control in report.controls]


def seed_card(report: Report, name: str, run: RunPart) -> RunCard:
    """The card of one seed of a report's run."""
    accuracy = known(run.accuracy)
    one = Accuracy(mean=accuracy, runs=1, by_seed={} if accuracy is None else {run.seed: accuracy})
    others = dict.fromkeys(("trainability_accuracy", "kept_magnitude", "latency"))
    of_the_first = {} if run == report.runs[0] else others
    return report_card(report, name).model_copy(update={"accuracy": one, **of_the_first})


def _arm_card(report: Report, name: str, control: ControlPart) -> RunCard:
    accuracy, runs, summary = known(control.accuracy), known(control.runs), known(control.summary)
    spread = _accuracy(runs, summary) if runs and summary else Accuracy(mean=accuracy)
    common = _common(report) | {"name": f"{name}: {control.name}", "arm_of": name, "accuracy": spread}
    ledger, macs = known(report.ledger), known(control.macs)
    measured = {
        "speedup": None if macs is None else report.macs.dense / max(macs, 1),
        "zero_fraction": known(control.zero_fraction),
    }
    if ledger is None:
        return RunCard.model_validate(common | measured | {"structure": None, "method": control.name})
    arm = _of_chain(report, chain(ledger, control.name))
    is_scratch = control.name.startswith(SCRATCH) and arm.get("base") == RANDOM_WEIGHTS
    if is_scratch:  # it has the pruned network's shapes from its start
        main = _of_chain(report, chain(ledger))
        arm |= {"base": SCRATCH, "structure": main["structure"], "compression": main.get("compression")}
    return RunCard.model_validate(common | arm | measured | {"method": control.name})


def _common(report: Report) -> dict[str, Any]:
    """What all runs of a report share."""
    data = known(report.data)
    return {
        "data": None if data is None else known(data.name),
        "data_sha256": None if data is None else data.sha256,
        "task": _task(report),
        "metric": report.accuracy.metric,
        "architecture": known(report.model.name),
        "architecture_sha256": report.model.architecture_sha256,
        "int8": report.target.endswith(("-int8", "-int4", "-fp8")),  # not parsed: the plug-in of a device may be gone
        "dense_accuracy": known(report.accuracy.dense),
    }


def _task(report: Report) -> Options:
    shapes = ", ".join("x".join(map(str, shape)) for shape in report.model.input_shapes)
    data = known(report.data)
    if data is None:
        return {"size of an input": shapes}
    split = known(data.split)  # where prunec didn't divide the data, their fingerprint covers each part
    return {
        **({} if split is None else {"split": split}),
        "size of an input": shapes,
        "training images": data.train_images,
        "validation images": data.validation_images,
        "test images": data.test_images,
        "preprocessing": f"fingerprint {data.preprocessing_sha256[:8]}",
    }


def _of_chain(report: Report, entries: Sequence[LedgerEntryPart]) -> dict[str, Any]:
    """What the entries tell that lead to a result; nothing where they don't lead back to the dense network."""
    stages, weights = ChainStages.of(entries), report.model.source_sha256
    pretraining = stages.pretraining
    if pretraining is None:
        return {"structure": None}
    is_untrained = known(pretraining.epochs) == 0
    own = OWN_TRAINING if known(pretraining.steps) else None
    return {
        "base": RANDOM_WEIGHTS if is_untrained else own,
        "base_sha256": None if is_untrained else weights,
        "structure": _structure(stages),
        "task_options": stages.options(TASK),
        "compression": stages.options(COMPRESSION),
        "base_options": stages.options(BASE),
        "method": _method(stages),
        "method_options": stages.options(METHOD),
        "without_effect": stages.options(NOWHERE),
        "undeclared": stages.options(UNDECLARED),
        "pretraining": _stage([pretraining]),
        "pretraining_options": TrainingOptions(optimizer=pretraining.options.get("optimizer")),
        "pruning": _pruning(report, stages),
        "pruning_options": _options(stages, PRUNING),
        "rounds": stages.rounds,
        "finetuning": _stage(stages.retraining),
        "training": _options(stages, RETRAINING),
        "operations": _operations(report, entries),
        "distilled": _is_distilled(stages),
    }


def _stage(trainings: Sequence[LedgerEntryPart]) -> Stage:
    return Stage(epochs=epochs_of(trainings), learning_rates=rates_of(trainings))


def _pruning(report: Report, stages: ChainStages) -> Stage:
    """The trainings before something was removed; what was looked at without training counts as epochs."""
    data, looked_at, trained = known(report.data), stages.looked_at, epochs_of(stages.pruning)
    if looked_at is None or trained is None or (looked_at and data is None):
        return Stage()
    scoring = looked_at / data.train_images if data is not None else 0.0
    return Stage(epochs=trained + scoring, scoring_epochs=scoring, learning_rates=rates_of(stages.pruning))


def _options(stages: ChainStages, place: str) -> TrainingOptions:
    return TrainingOptions.model_validate(stages.options(place) | {"is_complete": True})


def _structure(stages: ChainStages) -> str:
    """What was removed, in words."""
    words = {word for entry in stages.removing for word in _removed(entry)}
    return ", ".join(sorted(words, key=lambda word: (word != FILTERS, word))) or _NOTHING


def _removed(entry: LedgerEntryPart) -> tuple[str, ...]:
    if entry.stage == "prune-filters":
        return (FILTERS, RANKS) if entry.options.get("allocation") == "joint" else (FILTERS,)
    return (RANKS,) if entry.stage == "decompose" else (str(entry.options.get("pattern", entry.stage)),)


#: Options of a method that are told in short.
_TOLD = ("criterion", "ratio", "ratio_of_rest", "until", *GOALS)


def _method(stages: ChainStages) -> str | None:
    """The choices that are compared, in short: each criterion, and how much it was to remove."""
    options = stages.options(METHOD)
    words = [
        f"{name.removeprefix(f'{step}.')} {in_words(value)}" if not name.endswith(".criterion") else in_words(value)
        for step in dict.fromkeys(entry.stage for entry in stages.removing)
        for name, value in options.items()
        if name in (f"{step}.{told}" for told in _TOLD) and value != _NOTHING
    ]
    return ", ".join(["permuted"] * ("permute" in options) + words) or None


def _kept_magnitude(report: Report) -> float | None:
    """The share of the absolute weights that masks kept, in the mean over their layers."""
    layers = [sparsity for layer in report.layers if (sparsity := known(layer.sparsity)) is not None]
    kept = [share for layer in layers if (share := known(layer.retained_magnitude)) is not None]
    return sum(kept) / len(kept) if kept else None


def _latency(report: Report) -> Latency | None:
    """The time on the target; that of this CPU beside another target's is none of it."""
    measured, environment = known(report.latency), report.environment
    if measured is None:
        return None
    gpu = known(environment.gpu_state)
    hardware = environment.processor if measured.threads is not None else None if gpu is None else gpu.name
    return Latency(
        median_ms=measured.compiled_ms.median,
        target=report.target,
        hardware=hardware,
        batch=measured.batch,
        threads=measured.threads or 0,
    )


def _operations(report: Report, entries: Sequence[LedgerEntryPart]) -> float | None:
    """All operations of a run, over those of an epoch of dense training; None where an entry doesn't tell."""
    data = known(report.data)
    if data is None or not entries or entries[0].stage != PRETRAINING:
        return None
    epoch = _TRAINING_OVER_FORWARD * report.macs.dense * data.train_images
    spent = [_spent(entry, data.train_images) for entry in entries if changes(entry)]
    return None if None in spent else sum(filter(None, spent)) / epoch


def _spent(entry: LedgerEntryPart, train_images: int) -> float | None:
    """Operations of an entry; where only its epochs are told, all training images count in each."""
    samples, epochs, macs = known(entry.samples), known(entry.epochs), known(entry.macs_per_sample)
    if samples is None and epochs is not None:
        samples = round(epochs * train_images)
    return None if samples is None or macs is None else samples * macs.total


def _is_distilled(stages: ChainStages) -> bool | None:
    macs = [known(entry.macs_per_sample) for entry in stages.retraining]
    return None if None in macs else any(cost.teacher > 0 for cost in macs if cost is not None)


def _accuracy(runs: Sequence[RunPart], summary: RunsSummaryPart) -> Accuracy:
    by_seed = {run.seed: accuracy for run in runs if (accuracy := known(run.accuracy)) is not None}
    deviation = known(summary.standard_deviation)
    shown = by_seed if deviation is not None else {}  # seeds that change nothing are no repetition
    return Accuracy(mean=known(summary.mean), standard_deviation=deviation, runs=len(runs) or None, by_seed=shown)
