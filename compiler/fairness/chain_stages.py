"""The stages of a run, from the entries of a ledger that lead to its result: dense training, pruning, retraining.

Retraining is all training after something was removed for the first time, or all training where nothing was removed.
The pruning stage is what comes before, and all that was looked at to choose or to measure without training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.facts.ledger import PRETRAINING
from prunec.compiler.fairness.entry_places import named_options, place_of
from prunec.compiler.fairness.run_card import Options
from prunec.compiler.fairness.training_options import Changing
from prunec.compiler.recovery.rate_pieces import Pieces, joined
from prunec.compiler.report.ledger_part import LedgerEntryPart
from prunec.passes.unknown import Unknown, known


@dataclass(frozen=True)
class ChainStages:
    """The entries of a run by stage, in their order.

    Attributes:
        pretraining: The dense network's own training; None where the entries don't lead back to it.
        entries: All other entries.
        before: Number of the first of `entries` whose trainings belong to the pruning stage.
    """

    pretraining: LedgerEntryPart | None
    entries: tuple[LedgerEntryPart, ...]
    before: int

    @classmethod
    def of(cls, chain: Sequence[LedgerEntryPart]) -> Self:
        """The stages of a chain of entries."""
        pretraining = [entry for entry in chain if entry.stage == PRETRAINING]
        entries = tuple(entry for entry in chain if entry.stage != PRETRAINING)
        first = next((index for index, entry in enumerate(entries) if entry.removed), None)
        before = 0 if first is None else first + trains(entries[first])
        return cls(pretraining[-1] if pretraining else None, entries, before)

    @property
    def pruning(self) -> tuple[LedgerEntryPart, ...]:
        """Trainings before, or while, something is removed for the first time."""
        return tuple(filter(trains, self.entries[: self.before]))

    @property
    def retraining(self) -> tuple[LedgerEntryPart, ...]:
        """Trainings of the retraining."""
        return tuple(filter(trains, self.entries[self.before :]))

    @property
    def removing(self) -> tuple[LedgerEntryPart, ...]:
        """Entries that removed or masked weights."""
        return tuple(entry for entry in self.entries if entry.removed)

    @property
    def looked_at(self) -> int | None:
        """Samples that were looked at without training, to change the network; None where an entry doesn't tell.

        Those of a calibration are no part of the pruning: its options are compared, the number of samples among them.
        """
        looking = [entry for entry in self.entries if not trains(entry) and entry.stage != Calibrate.name]
        samples = [known(entry.samples) for entry in looking if changes(entry)]
        return None if None in samples else sum(filter(None, samples))

    @property
    def rounds(self) -> tuple[float, ...] | None:
        """Epochs of the retraining at which something is removed; None where lengths aren't known."""
        starts = [self._start(index) for index, entry in enumerate(self.entries) if entry.removed]
        return None if None in starts else tuple(dict.fromkeys(start for start in starts if start is not None))

    def options(self, place: str) -> Options:
        """The options of all steps at one place, by ``STEP.OPTION``, those of trainings by their own names.

        One that changes from one training to the next has all its values, with the epoch of the retraining, or of the
        pruning stage, from which on each holds.
        """
        by_label: dict[str, list[tuple[float, Any]]] = {}
        for index, entry in enumerate(self.entries):
            alike = [other for other in self.entries if other.stage == entry.stage]
            options = named_options(entry, alike, self._start(index) or 0.0)
            for label, (name, value) in options.items():
                if place_of(entry, alike, name, self._is_early(index)) == place:
                    by_label.setdefault(label, []).append((self._start(index) or 0.0, value))
        return {label: _collapsed(values) for label, values in by_label.items()}

    def _is_early(self, index: int) -> bool:
        """Whether an entry belongs to the pruning stage."""
        is_retrained = any(map(trains, self.entries[self.before : index]))
        return index < self.before if trains(self.entries[index]) else not is_retrained

    def _start(self, index: int) -> float | None:
        """Epochs of the retraining, or of the pruning stage, before an entry."""
        begin = self.before if index >= self.before else 0
        return epochs_of([entry for entry in self.entries[begin:index] if trains(entry)])


def trains(entry: LedgerEntryPart) -> bool:
    """Whether an entry is of a training."""
    return isinstance(entry.learning_rates, Unknown) or bool(entry.learning_rates)


def changes(entry: LedgerEntryPart) -> bool:
    """Whether an entry left other weights than it found; measurements cost a run nothing."""
    return entry.weights_in != entry.weights_out


def epochs_of(trainings: Sequence[LedgerEntryPart]) -> float | None:
    """Epochs of trainings together; None where one isn't known."""
    epochs = [known(entry.epochs) for entry in trainings]
    return None if None in epochs else float(sum(filter(None, epochs)))


def rates_of(trainings: Sequence[LedgerEntryPart]) -> Pieces | None:
    """Learning rates of trainings one after the other; None where one isn't known."""
    rates = [known(entry.learning_rates) for entry in trainings]
    return None if None in rates else joined(*filter(None, rates))


def _collapsed(values: Sequence[tuple[float, Any]]) -> Any:
    """A value, or the values that follow each other where there are several."""
    changes = [pair for i, pair in enumerate(values) if i == 0 or pair[1] != values[i - 1][1]]
    return changes[0][1] if len(changes) == 1 else Changing(changes=tuple(changes))
