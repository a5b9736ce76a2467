"""Run cards from where runs are written down: report.json, a bundle, or a YAML file of published rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prunec.compiler.bundle.bundle_names import REPORT
from prunec.compiler.fairness.run_card import Accuracy, RunCard, Stage, TrainingOptions
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import RecoveryPart
from prunec.passes.errors import InputError
from prunec.passes.unknown import Unknown, known

#: Options of a training that have one name and meaning in reports and run cards.
_SAME_IN_REPORTS = ("optimizer", "momentum", "nesterov", "weight_decay", "batch_size", "augmentation", "precision")


def read_cards(path: Path) -> list[RunCard]:
    """The runs that a file, or a bundle's folder, describes.

    Args:
        path: A bundle, a report.json, or YAML: a mapping with the keys of `RunCard`, or ``runs``, a list of them, and
            ``common``, the keys that they share.

    Raises:
        InputError: The file can't be read, or is none of these.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "Give a bundle, a report.json or a YAML file."
        raise InputError(f"{file} can't be read: {error}.", hint=hint) from error
    try:
        if file.suffix == ".json":
            return [report_card(Report.from_json(text), path.stem if path.is_dir() else file.stem)]
        return _yaml_cards(yaml.safe_load(text), file.stem)
    except yaml.YAMLError as error:
        raise InputError(f"{file} is no YAML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise InputError(f"{file} describes no run: {where}: {first['msg']}.") from error
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}.") from error


def report_card(report: Report, name: str) -> RunCard:
    """The card of a report's run."""
    data, recovery, pruning = known(report.data), known(report.recovery), known(report.pruning)
    pretraining, summary = report.pretraining, report.runs_summary
    finetuning = Stage(epochs=0)
    if recovery is not None:
        finetuning = Stage(epochs=recovery.epochs, learning_rates=recovery.learning_rates)
    return RunCard(
        name=name,
        data=None if data is None else f"{data.sha256}/{data.preprocessing_sha256}",
        metric=report.accuracy.metric,
        architecture=report.model.architecture_sha256,
        base=report.model.source_sha256,
        speedup=report.macs.speedup,
        method=None if pruning is None else f"{pruning.criterion}, {pruning.structure}",
        pretraining=Stage(epochs=known(pretraining.epochs), learning_rates=known(pretraining.learning_rates)),
        pruning=Stage(epochs=0 if pruning is None else pruning.epochs, learning_rates=None),
        finetuning=finetuning,
        training=_training(recovery),
        distilled=False if recovery is None else recovery.distillation is not None,
        int8=report.target.endswith("-int8"),  # not parsed: the plug-in of a device may be gone
        dense_accuracy=known(report.accuracy.dense),
        accuracy=Accuracy(mean=known(summary.mean), standard_deviation=known(summary.standard_deviation)),
        trainability_accuracy=None if recovery is None else known(recovery.trainability_accuracy),
    )


def _training(recovery: RecoveryPart | None) -> TrainingOptions:
    if recovery is None:
        return TrainingOptions()
    smoothing = known(recovery.label_smoothing)
    loss = f"{recovery.loss}, labels smoothed by {smoothing:g}" if smoothing else recovery.loss
    return TrainingOptions(
        loss=None if isinstance(recovery.label_smoothing, Unknown) else loss,
        ema="none" if recovery.ema is None else recovery.ema,
        clip_norm="none" if recovery.clip_norm is None else known(recovery.clip_norm),
        **{name: getattr(recovery, name) for name in _SAME_IN_REPORTS},
    )


def _yaml_cards(document: Any, name: str) -> list[RunCard]:
    if not isinstance(document, Mapping):
        got = type(document).__name__
        raise InputError(f"{name}: expected a mapping with the fields of a run, or with runs, got {got}.")
    if "runs" not in document:
        return [RunCard.model_validate({"name": name, **document})]
    unknown = sorted(map(str, document.keys() - {"common", "runs"}))
    if unknown or not isinstance(document["runs"], list):
        raise InputError(f"{name}: beside the list runs only common may stand, got {', '.join(unknown)}.")
    common = document.get("common") or {}
    return [RunCard.model_validate(_merged(common, run)) for run in document["runs"]]


def _merged(common: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's fields over the common ones, part by part; a schedule replaces another one."""
    result = dict(common)
    for key, value in run.items():
        shared = result.get(key)
        if isinstance(value, Mapping) and isinstance(shared, Mapping):
            is_scheduled = {"schedule", "learning_rates"} & value.keys()
            replaced = {"schedule", "epochs", "learning_rates"} if is_scheduled else set()
            result[key] = {k: v for k, v in shared.items() if k not in replaced} | dict(value)
        else:
            result[key] = value
    return result
