"""Learning-rate schedules as text: ``step:0=1e-2,30=1e-3``, ``cosine:0.02``, ``slr``, ``P30F90,1e-2`` and the like.

How a pruned network is retrained decides its accuracy more than the pruning criterion does, so a schedule is an exact
object: its text stands in the report and gives it back.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from prunec.compiler.recovery.bounds import check_bounds
from prunec.compiler.recovery.named_rows import SCRATCH_SCHEDULE, NamedRow, exact_epochs, named_row
from prunec.compiler.recovery.schedule_curves import CosineSchedule, OneCycle, ScaledRestart, Schedule, StepSchedule
from prunec.passes.errors import UsageError, did_you_mean

__all__ = ["WEIGHT_REWINDING", "OriginalUnknownError", "Schedule", "parse_schedule", "untrained"]

#: The halving rule: no stage is longer, and no stage has a lower learning rate.
HALVING_LONGEST_STAGE = 30
HALVING_LAST_LEARNING_RATE = Decimal("1e-5")
#: The kind of schedule that rewinds the learning rate and starts from the weights of the epoch that it rewinds to.
WEIGHT_REWINDING = "wr"
#: ``rest(15):...`` is a schedule from its epoch 15 on.
_REST = re.compile(r"rest\(([^()]*)\):(.+)", re.IGNORECASE)
#: ``...+60`` makes the first stage 60 epochs longer; the plus in 1e+2 doesn't count.
_LENGTHENED = re.compile(r"(.*[^e])\+(\d+)", re.IGNORECASE)


class OriginalUnknownError(UsageError):
    """The schedule derives from the dense network's own, which nothing tells."""


class ScheduleText(NamedTuple):
    """The text of a schedule, and the run that it is for.

    Attributes:
        text: The whole text of the schedule.
        arguments: The part of the text after the colon.
        epochs: Length of the run, where it is known.
        original: The schedule that the dense network was trained with, where it is known.
    """

    text: str
    arguments: str
    epochs: float | None
    original: Schedule | None

    def error(self, problem: str, hint: str | None = None) -> UsageError:
        return UsageError(f"The schedule {self.text!r} {problem}", hint=hint)

    def learning_rate(self, text: str) -> float:
        """A learning rate above 0."""
        value = self.number(text, "learning rate")
        if value <= 0:
            raise self.error(f"has the learning rate {text}; it must be above 0.")
        return value

    def number(self, text: str, what: str) -> float:
        """A finite number that isn't negative."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise self.error(f"has the {what} {text!r}; expected a number.", hint=f"For example {_EXAMPLES}.")
        return value

    def values(self, *defaults: float) -> list[float]:
        """Numbers above 0, separated by commas; the defaults stand for those that aren't given."""
        given = [self.learning_rate(part) for part in self.arguments.split(",")] if self.arguments else []
        if len(given) > len(defaults):
            raise self.error(f"has {len(given)} values, and at most {len(defaults)} are expected.")
        return [*given, *defaults[len(given) :]]

    def known_original(self) -> tuple[Schedule, float]:
        """The dense network's schedule and its length."""
        if self.original is None or not self.original.epochs:
            raise OriginalUnknownError(
                f"The schedule {self.text!r} derives from the dense network's own, and nothing tells that one.",
                hint='Tell it under [model] in prunec.toml: pretraining = {epochs = 90, schedule = "step:..."}.',
            )
        return self.original, self.original.epochs

    def length(self) -> float:
        """The length of the run, which this kind of schedule depends on."""
        if self.epochs is None:
            raise self.error("depends on the length of the run: give the number of epochs.")
        return self.epochs


def _step(written: ScheduleText) -> Schedule:
    stages = []
    for entry in written.arguments.split(","):
        start, equals, rate = entry.partition("=")
        if not equals:
            raise written.error(f"has the entry {entry!r}; expected EPOCH=LEARNING_RATE.")
        stages.append((written.number(start, "epoch"), written.learning_rate(rate)))
    starts = [start for start, _ in stages]
    if starts[0] != 0:
        raise written.error(f"starts at epoch {starts[0]:g}; its first entry must be for epoch 0.")
    if any(after <= before for before, after in pairwise(starts)):
        raise written.error("names epochs that don't increase.")
    if written.epochs is not None and starts[-1] >= written.epochs:
        raise written.error(
            f"has an entry for epoch {starts[-1]:g}, which a run of {written.epochs:g} epochs never reaches.",
            hint="Train longer, or move or remove that entry.",
        )
    return StepSchedule(written.text, written.epochs, tuple(stages))


def _cosine(written: ScheduleText) -> Schedule:
    peak, *rest = written.arguments.split(",")
    if len(rest) > 1:
        raise written.error("has too many values; expected cosine:LEARNING_RATE or cosine:LEARNING_RATE,MINIMUM.")
    highest, lowest = written.learning_rate(peak), written.number(rest[0], "minimum") if rest else 0.0
    if lowest > highest:
        raise written.error(f"has a minimum above its learning rate ({lowest:g} > {highest:g}).")
    return CosineSchedule(written.text, written.length(), highest, lowest)


def _constant(written: ScheduleText) -> Schedule:
    return StepSchedule(written.text, written.epochs, ((0, written.learning_rate(written.arguments)),))


def _halving(written: ScheduleText) -> Schedule:
    """Stages that each take half of the epochs left, at most 30, at a tenth of the rate before, down to 1e-5."""
    written.learning_rate(written.arguments)
    rate, start, epochs = Decimal(written.arguments), 0, written.length()
    stages: list[tuple[float, float]] = [(start, float(rate))]
    while rate / 10 >= HALVING_LAST_LEARNING_RATE:
        # The last stage is not in this loop: it takes whatever is left.
        start += min(HALVING_LONGEST_STAGE, math.ceil((epochs - start) / 2))
        rate /= 10
        if start >= epochs:
            break
        stages.append((start, float(rate)))
    return StepSchedule(written.text, epochs, tuple(stages))


def _fine_tuning(written: ScheduleText) -> Schedule:
    """One learning rate: the last of the dense network's own training, or a given one."""
    if written.arguments:
        return _constant(written)
    original, epochs = written.known_original()
    return StepSchedule(written.text, written.epochs, ((0, original.learning_rate(epochs - 1)),))


def _rewinding(written: ScheduleText) -> Schedule:
    """The last epochs of the dense network's own schedule."""
    if written.arguments:
        raise written.error("has values, and rewinding takes none.")
    original, whole = written.known_original()
    length = written.length()
    start = whole - length
    if start < 0:
        raise written.error(
            f"rewinds {length:g} epochs, and the dense network was trained for {whole:g}.", hint="Retrain no longer."
        )
    return original.rest(start, written.text, length)


def _scaled_restart(written: ScheduleText) -> Schedule:
    high, low, first, second = written.values(0.1, 0.001, 0.5, 0.75)
    if not first < second < 1:
        raise written.error("has drops that are no increasing shares of the run.", hint="slr:0.1,0.001,0.5,0.75")
    return ScaledRestart(written.text, written.length(), high, low, first, second)


def _one_cycle(written: ScheduleText) -> Schedule:
    return OneCycle(written.text, written.length(), *written.values(0.1))


#: Kind of schedule -> function that builds it. A new kind is a new entry.
SCHEDULE_KINDS: dict[str, Callable[[ScheduleText], Schedule]] = {
    "step": _step,
    "cosine": _cosine,
    "constant": _constant,
    "halving": _halving,
    "ft": _fine_tuning,
    "lrw": _rewinding,
    WEIGHT_REWINDING: _rewinding,
    "slr": _scaled_restart,
    "clr": _one_cycle,
}
#: The kinds that need no values.
_BARE = ("ft", "lrw", WEIGHT_REWINDING, "slr", "clr")
_EXAMPLES = "step:0=1e-2,30=1e-3, cosine:0.02, constant:1e-3, halving:1e-2, slr or P30F90,1e-2"


def parse_schedule(text: str, *, epochs: float | None = None, original: Schedule | None = None) -> Schedule:
    """The schedule that a text names: a kind, a colon, its values.

    | text | learning rate |
    |---|---|
    | ``step:0=1e-2,30=1e-3`` | piecewise constant, from these epochs on |
    | ``cosine:0.02`` or ``cosine:0.02,1e-4`` | half a cosine down to 0 or to a minimum |
    | ``constant:1e-3`` | one rate throughout |
    | ``halving:1e-2`` | stages of half the epochs left, at most 30; each at a tenth of the last rate, down to 1e-5 |
    | ``P30F90,1e-2`` | 90 epochs of a network pruned at epoch 30, as published: see below |
    | ``rest(15):SCHEDULE`` | another schedule from its epoch 15 on; it is 15 epochs longer than the run |
    | ``ft`` or ``ft:1e-3`` | fine-tuning: the last rate of the dense network's own training, or a given one |
    | ``lrw`` | learning-rate rewinding: the last epochs of the dense network's own schedule |
    | ``wr`` | weight rewinding: the same from the weights of that epoch, given as ``early`` |
    | ``slr`` or ``slr:0.1,0.001,0.5,0.75`` | scaled restarting: highest and lowest rate, shares of the run at drops |
    | ``clr`` or ``clr:0.1`` | cyclic restarting in one cycle, with its highest rate |

    Named rows are the rest of the published schedule from scratch (`named_rows.SCRATCH_SCHEDULE`) where they end
    with its 120 epochs and begin at its learning rate, as P15F105,1e-1 does, and ``halving`` otherwise. The epoch of
    the pruning may be a fraction or a quotient: P2.49F90,1e-1 or P30/12.06F90,1e-1.

    Where stages are constant, ``+60`` at the end makes the first one 60 epochs longer; they are part of ``epochs``.

    Args:
        text: The text, in which blanks don't count.
        epochs: Length of the run; all but ``step``, ``constant`` and ``ft`` need it or, like P30F90, say it.
        original: The schedule of the dense network's own training, for kinds that derive theirs from it.

    Raises:
        UsageError: The kind is unknown, the values make no schedule, or the run never reaches one of the changes.
        OriginalUnknownError: The schedule derives from ``original``, which is not given.
    """
    text = "".join(text.split())
    check_bounds(text, epochs)
    if _REST.fullmatch(text) is not None:
        return _rest(text, epochs, original)
    if (longer := _LENGTHENED.fullmatch(text)) is not None:
        return _lengthened(text, longer[1], int(longer[2]), epochs, original)
    if (row := named_row(text)) is not None:
        return _named(row, ScheduleText(text, row.rate, epochs, original))
    kind, colon, arguments = text.partition(":")
    if kind not in SCHEDULE_KINDS:
        raise UsageError(f"The schedule {text!r} is of an unknown kind.", hint=did_you_mean(kind, SCHEDULE_KINDS))
    if not arguments and (colon or kind not in _BARE):
        raise UsageError(f"The schedule {text!r} has no learning rate.", hint=f"For example {_EXAMPLES}.")
    return SCHEDULE_KINDS[kind](ScheduleText(text, arguments, epochs, original))


def untrained() -> Schedule:
    """The schedule of a network with random weights, which has no epochs."""
    return StepSchedule("untrained", 0, ())


def _named(row: NamedRow, written: ScheduleText) -> Schedule:
    """A row of the published tables."""
    check_bounds(written.text, row.epochs)
    if written.epochs not in (None, row.epochs):
        raise written.error(f"is of {row.epochs} epochs, and the run of {written.epochs:g}.")
    written.learning_rate(row.rate)
    if row.is_rest_of_scratch:
        return SCRATCH_SCHEDULE.rest(float(row.pruned_at), written.text, row.epochs)
    return _halving(written._replace(epochs=row.epochs))


def _rest(text: str, epochs: float | None, original: Schedule | None) -> Schedule:
    """A schedule from one of its epochs on."""
    start, inner = Fraction(0), text
    while (match := _REST.fullmatch(inner)) is not None:
        start, inner = start + exact_epochs(match[1], text), match[2]
    if inner == WEIGHT_REWINDING:
        raise UsageError(f"The schedule {text!r} leaves out the epochs that weights are rewound to.", hint="Use lrw.")
    whole = None if epochs is None else _plain(start + Fraction(epochs))
    schedule = parse_schedule(inner, epochs=whole, original=original)
    if epochs is None and schedule.epochs is not None:
        if start >= schedule.epochs:
            raise UsageError(f"The schedule {text!r} has no rest: {inner} ends at epoch {schedule.epochs:g}.")
        epochs = _plain(Fraction(schedule.epochs) - start)
    return schedule.rest(float(start), text, epochs)


def _plain(number: Fraction) -> float:
    """The number as a float, or as an int where it is whole."""
    return number.numerator if number.denominator == 1 else float(number)


def _lengthened(text: str, base: str, more: int, epochs: float | None, original: Schedule | None) -> Schedule:
    """A schedule of constant stages whose first one is so many epochs longer."""
    if epochs is not None and epochs <= more:
        raise UsageError(
            f"The schedule {text!r} makes its first stage {more} epochs longer, and the run has {epochs:g} in all.",
            hint="The epochs of a run include them.",
        )
    schedule = parse_schedule(base, epochs=None if epochs is None else epochs - more, original=original)
    if not isinstance(schedule, StepSchedule):
        raise UsageError(f"The schedule {text!r} has no first stage of constant learning rate to make longer.")
    first, *later = schedule.stages
    length = None if schedule.epochs is None else schedule.epochs + more
    check_bounds(text, length)
    stages = (first, *((start + more, rate) for start, rate in later))
    return replace(schedule, text=text, epochs=length, stages=stages)
