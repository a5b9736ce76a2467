"""Run cards of reports that have no ledger: prunec kept the last values of a run before it kept a record of all.

What such a report doesn't tell, such as an epoch's exact learning rates or whether gradients were clipped by parts, is
not known, and the level of a comparison falls by it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from prunec.compiler.fairness.run_card import FILTERS, RANDOM_WEIGHTS, Stage
from prunec.compiler.fairness.training_options import TrainingOptions
from prunec.compiler.report.report import Report
from prunec.compiler.report.training_parts import RecoveryPart
from prunec.passes.errors import UsageError
from prunec.passes.notation import Item, parse_items
from prunec.passes.unknown import known

_NOTHING = "none"
_PRUNE, _SPARSIFY, _RECOVER = "prune-filters", "sparsify", "recover"
#: Options of a training that have one name in such reports and on cards.
_ALIKE = ("optimizer", "momentum", "nesterov", "weight_decay", "batch_size", "loss", "augmentation", "precision")
_LATER = ("accumulate", "label_smoothing", "sync_batchnorm")


def card_without_ledger(report: Report) -> dict[str, Any]:
    """The fields of a card that such a report tells, as values by name."""
    steps = _steps(report.pipeline)
    recovery, pretraining = known(report.recovery), known(report.pretraining.epochs)
    pruning, is_untrained = known(report.pruning), pretraining == 0
    taken = steps or []
    structure = [FILTERS] * (_PRUNE in taken) + ["2:4"] * (_SPARSIFY in taken)
    return {
        # A fingerprint of such a report may be that of a network before.
        "base": RANDOM_WEIGHTS if is_untrained else None,
        "structure": None if steps is None else ", ".join(structure) or _NOTHING,
        "speedup": report.macs.speedup,
        "zero_fraction": known(report.parameters.zero_fraction),
        "method": None if pruning is None else f"{pruning.criterion}, {pruning.structure}",
        "pretraining": Stage(epochs=pretraining),
        "finetuning": Stage(epochs=None if steps is None else _epochs(recovery, steps.count(_RECOVER))),
        "training": TrainingOptions() if recovery is None else TrainingOptions.model_validate(_options(recovery)),
        "distilled": False if recovery is None else recovery.distillation is not None,
        "trainability_accuracy": None if recovery is None else known(recovery.trainability_accuracy),
    }


def _epochs(recovery: RecoveryPart | None, trainings: int) -> float | None:
    """Epochs of the retraining; such a report tells those of the last training alone."""
    if recovery is None:
        return 0.0 if trainings == 0 else None
    return float(recovery.epochs) if trainings == 1 else None


def _options(recovery: RecoveryPart) -> dict[str, Any]:
    later = {name: known(getattr(recovery, name)) for name in _LATER}
    return {
        **{name: getattr(recovery, name) for name in _ALIKE},
        **{name: value for name, value in later.items() if value is not None},
        "ema": _NOTHING if recovery.ema is None else recovery.ema,
        "clip_norm": _NOTHING if recovery.clip_norm is None else known(recovery.clip_norm),
        "keep": recovery.checkpoint,
    }


def _steps(pipeline: str) -> list[str] | None:
    """Names of the steps of a pipeline, those of repeats once more each; None where the text can't be read."""
    try:
        return list(_flat(parse_items(pipeline)))
    except UsageError:
        return None


def _flat(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        if item.body is None:
            yield item.name
        else:
            for _ in range(int(str(item.options.get("n", 1)))):
                yield from _flat(item.body)
