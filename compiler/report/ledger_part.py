"""The ledger of report.json: what every stage spent, and the chain of stages that leads to a run's result."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

from pydantic import Field

from prunec.compiler.facts.ledger import PRETRAINING
from prunec.compiler.recovery.rate_fields import RatePieces
from prunec.compiler.report.nulls import Figures, Maybe, NullMeans
from prunec.compiler.report.report_part import Count, Part, SortedDict

Macs = Annotated[float, Field(ge=0)]
_NO_DATA = NullMeans("it looked at no data")


class MacsPerSamplePart(Part):
    """Multiply-accumulates for one sample: the network's outputs, its gradients, a teacher, and training hooks."""

    forward: Macs
    backward: Macs
    teacher: Macs
    regulariser: Macs

    @property
    def total(self) -> float:
        """All of them together."""
        return self.forward + self.backward + self.teacher + self.regulariser


class LedgerEntryPart(Part):
    """What one stage spent.

    `run` is the control arm or further seed that it belongs to, empty for the compile itself. `options` holds all
    options as they were followed, those of criteria and hooks under dotted names, and `places` what these say of their
    options' place in a comparison. `removed` says whether it removed or masked weights. `samples` are training samples,
    repeated ones counted again; `learning_rates` cover its epochs, and are empty where nothing was trained.
    `weights_in` and `weights_out` are fingerprints; "random" is what nothing was trained to.
    """

    run: str
    stage: str
    options: Figures
    places: SortedDict[str]
    removed: bool
    epochs: Maybe[Annotated[float, Field(ge=0)]]
    steps: Maybe[Count]
    samples: Maybe[Count]
    macs_per_sample: Maybe[MacsPerSamplePart]
    learning_rates: Maybe[RatePieces]
    data: Annotated[Maybe[str] | None, _NO_DATA]
    split: Annotated[Maybe[str] | None, _NO_DATA]
    seed: Maybe[Count]
    weights_in: Maybe[str]
    weights_out: Annotated[Maybe[str] | None, NullMeans("the weights were thrown away")]


def chain(ledger: Sequence[LedgerEntryPart], run: str = "") -> list[LedgerEntryPart]:
    """The entries that lead from the start of a run to the weights that it ends with, in order.

    Args:
        ledger: The entries of a report.
        run: The run; it follows the pretraining that all runs of a report share, unless it has one of its own.
    """
    own = [entry for entry in ledger if entry.run == run]
    if not any(entry.stage == PRETRAINING for entry in own):
        own = [entry for entry in ledger if not entry.run and entry.stage == PRETRAINING] + own
    backwards: list[LedgerEntryPart] = []
    for entry in reversed([entry for entry in own if entry.weights_out is not None]):
        if not backwards or entry.weights_out == backwards[-1].weights_in:
            backwards.append(entry)
    return backwards[::-1]


def trainings_before_removal(entries: Sequence[LedgerEntryPart]) -> list[LedgerEntryPart]:
    """The trainings of a chain between the dense network's own and the first step that removed or masked weights.

    They are part of the pruning; where nothing was removed there are none.
    """
    if not any(entry.removed for entry in entries):
        return []
    return [entry for entry in takewhile(lambda entry: not entry.removed, entries[1:]) if entry.steps]
