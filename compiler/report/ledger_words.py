"""The ledger in words, a row for each entry."""

from dataclasses import dataclass

from prunec.compiler.recovery.rate_pieces import words
from prunec.compiler.report.headline_figures import si
from prunec.compiler.report.ledger_part import LedgerEntryPart
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown, known

_NOT_KNOWN = "not known"


@dataclass(frozen=True)
class LedgerRow:
    """One entry: its run and stage, what it spent, and the learning rates that it followed."""

    run: str
    stage: str
    epochs: str
    samples: str
    operations: str
    learning_rates: str


def ledger_rows(report: Report) -> list[LedgerRow]:
    """The entries that cost something, or of which that isn't known; none where the report has no ledger."""
    return [_row(entry) for entry in known(report.ledger) or () if entry.samples != 0]


def _row(entry: LedgerEntryPart) -> LedgerRow:
    samples, macs, rates = entry.samples, entry.macs_per_sample, entry.learning_rates
    return LedgerRow(
        run=entry.run or "compile",
        stage=entry.stage,
        epochs=_NOT_KNOWN if isinstance(entry.epochs, Unknown) else f"{entry.epochs:g}",
        samples=_NOT_KNOWN if isinstance(samples, Unknown) else str(samples),
        operations=_NOT_KNOWN
        if isinstance(samples, Unknown) or isinstance(macs, Unknown)
        else si(round(samples * macs.total)),
        learning_rates=_NOT_KNOWN if isinstance(rates, Unknown) else words(rates),
    )
