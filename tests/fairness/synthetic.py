"""Reports of runs that were never run: their ledger is booked as prunec books it, from the options of steps."""

from collections.abc import Sequence
from typing import Any

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.facts.ledger import PRETRAINING, RANDOM
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.report.ledger_part import LedgerEntryPart, MacsPerSamplePart
from prunec.compiler.report.report import Report
from prunec.passes.figures import plain_figures
from prunec.passes.options import resolved_options
from tests.compiler.sample_report import sample_report

TRAIN_IMAGES = 1000
DENSE_MACS, COMPILED_MACS = 2_000_000, 1_000_000
REMOVING = ("prune-filters", "sparsify")


def entry(stage: str, options: dict[str, Any], **fields: Any) -> LedgerEntryPart:
    """An entry of a step that looks at nothing and trains nothing, where the fields don't say otherwise."""
    known: dict[str, Any] = {
        "run": "",
        "stage": stage,
        "options": options,
        "places": {},
        "removed": stage in REMOVING,
        "epochs": 0.0,
        "steps": 0,
        "samples": 0,
        "macs_per_sample": MacsPerSamplePart(forward=0, backward=0, teacher=0, regulariser=0),
        "learning_rates": (),
        "data": None,
        "split": None,
        "seed": 0,
        "weights_in": "",
        "weights_out": "",
    }
    return LedgerEntryPart(**known | fields)


def _macs(forward: int, teacher: int = 0) -> MacsPerSamplePart:
    return MacsPerSamplePart(forward=forward, backward=2 * forward, teacher=teacher, regulariser=0)


def trained(options: dict[str, Any], places: dict[str, str]) -> LedgerEntryPart:
    """The entry of a training with these options."""
    epochs = int(options["epochs"])
    schedule = parse_schedule(str(options["schedule"]), epochs=epochs)
    teacher = DENSE_MACS if options["distill"] else 0
    return entry(
        Recover.name,
        options,
        places=places,
        epochs=epochs,
        steps=10 * epochs,
        samples=epochs * TRAIN_IMAGES,
        macs_per_sample=_macs(COMPILED_MACS, teacher),
        learning_rates=schedule.pieces(epochs, float(options["warmup"])),
        data="0" * 64,
        split="training data without validation",
    )


def booked(step: Any, *, augment: Sequence[str] = ("flip",), **changes: Any) -> LedgerEntryPart:
    """The entry that a step leaves, with some of its options changed to what no step need allow."""
    resolved = resolved_options(step)
    options = plain_figures(resolved.values)
    if isinstance(step, Recover):
        of_the_project = {"loss": "cross-entropy", "augment": list(augment), "processes": 1}
        return trained(options | of_the_project | changes, dict(resolved.places))
    looks = step.name in ("re-estimate-batchnorm", Calibrate.name) or "inputs" in getattr(step, "needs", ())
    options |= changes
    samples = int(options["samples"]) if looks else 0
    return entry(step.name, options, places=dict(resolved.places), samples=samples)


def pretrained(epochs: float = 5, schedule: str = "constant:0.1") -> LedgerEntryPart:
    """The entry of the dense network's training; 0 epochs for random weights."""
    rates = parse_schedule(schedule, epochs=int(epochs)).pieces(epochs) if epochs else ()
    samples = int(epochs * TRAIN_IMAGES)
    return entry(
        PRETRAINING, {}, epochs=epochs, samples=samples, macs_per_sample=_macs(DENSE_MACS), learning_rates=rates
    )


def chained(entries: Sequence[LedgerEntryPart], run: str = "") -> tuple[LedgerEntryPart, ...]:
    """Entries whose weights follow each other from random ones on."""
    weights = [RANDOM, *(f"{run} weights {number}" for number in range(len(entries)))]
    return tuple(
        one.model_copy(update={"run": run, "weights_in": weights[number], "weights_out": weights[number + 1]})
        for number, one in enumerate(entries)
    )


def report_of(*entries: LedgerEntryPart, **changes: Any) -> Report:
    """A report with a ledger of these entries."""
    base = sample_report()
    macs = base.macs.model_copy(update={"dense": DENSE_MACS, "compiled": COMPILED_MACS, "speedup": 2.0})
    data = base.data.model_copy(update={"train_images": TRAIN_IMAGES})  # type: ignore[union-attr]
    return base.model_copy(update={"macs": macs, "data": data, "ledger": chained(entries), **changes})
