"""Run cards from where runs are written down: report.json, a bundle, or a YAML file of published rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from prunec.compiler.bundle import REPORT_NAME
from prunec.compiler.fairness.card import Accuracy, RunCard, Stage, Training
from prunec.compiler.report import Pretraining, Recovery, Report
from prunec.passes.errors import InputError
from prunec.runtime.target import Target


def read_cards(path: Path) -> list[RunCard]:
    """The runs that a file, or a bundle's folder, describes.

    Args:
        path: a bundle, a report.json, or YAML: a mapping with the keys of `RunCard`, or ``runs``, a list of them, and
            ``common``, the keys that they share.

    Raises:
        InputError: it can't be read, or is none of these.
    """
    file = path / REPORT_NAME if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} can't be read: {error}.", hint="Give a bundle, a report.json or a YAML file."
        ) from error
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


def report_card(report: Report, name: str) -> RunCard:
    """What a report tells of its run."""
    data, recovery, pruning = report.data, report.recovery, report.pruning
    return RunCard(
        name=name,
        data=None if data is None else f"{data.sha256}/{data.preprocessing_sha256}",
        metric=report.accuracy.metric,
        architecture=report.model.architecture_sha256,
        base=report.model.source_sha256,
        speedup=report.macs.speedup,
        method=None if pruning is None else f"{pruning.criterion}, {pruning.structure}",
        pretraining=_pretraining(report.pretraining),
        pruning=Stage(epochs=0 if pruning is None else pruning.epochs, learning_rates=None),
        finetuning=_finetuning(recovery),
        training=_training(recovery),
        distilled=False if recovery is None else recovery.distillation is not None,
        int8=Target.parse(report.target).precision == "int8",
        dense_accuracy=report.accuracy.dense,
        accuracy=Accuracy(mean=report.runs_summary.mean, standard_deviation=report.runs_summary.standard_deviation),
        trainability_accuracy=None if recovery is None else recovery.trainability_accuracy,
    )


def _pretraining(found: Pretraining) -> Stage:
    return Stage(epochs=found.epochs, learning_rates=found.learning_rates)


def _finetuning(recovery: Recovery | None) -> Stage:
    if recovery is None:
        return Stage(epochs=0)
    return Stage(epochs=recovery.epochs, learning_rates=recovery.learning_rates)


def _training(recovery: Recovery | None) -> Training:
    if recovery is None:
        return Training()
    return Training(
        optimizer=recovery.optimizer,
        momentum=recovery.momentum,
        nesterov=recovery.nesterov,
        weight_decay=recovery.weight_decay,
        batch_size=recovery.batch_size,
        loss=recovery.loss
        if not recovery.label_smoothing
        else f"{recovery.loss}, labels smoothed by {recovery.label_smoothing:g}",
        augmentation=recovery.augmentation,
        ema="none" if recovery.ema is None else recovery.ema,
        clip_norm="none" if recovery.clip_norm is None else recovery.clip_norm,
        precision=recovery.precision,
    )


def _yaml_cards(document: Any, name: str) -> list[RunCard]:
    if not isinstance(document, Mapping):
        raise InputError(
            f"{name}: expected a mapping with the fields of a run, or with runs, got {type(document).__name__}."
        )
    if "runs" not in document:
        return [RunCard.model_validate({"name": name, **document})]
    unknown = document.keys() - {"common", "runs"}
    if unknown or not isinstance(document["runs"], list):
        raise InputError(
            f"{name}: beside the list runs only common may stand, got {', '.join(sorted(map(str, unknown)))}."
        )
    common = document.get("common") or {}
    return [RunCard.model_validate(_merged(common, run)) for run in document["runs"]]


def _merged(common: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's fields over the common ones, parts of them likewise; a schedule replaces another one."""
    result = dict(common)
    for key, value in run.items():
        shared = result.get(key)
        if isinstance(value, Mapping) and isinstance(shared, Mapping):
            replaced = (
                {"schedule", "epochs", "learning_rates"} if {"schedule", "learning_rates"} & value.keys() else set()
            )
            result[key] = {k: v for k, v in shared.items() if k not in replaced} | dict(value)
        else:
            result[key] = value
    return result
