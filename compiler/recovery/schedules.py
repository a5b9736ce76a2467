"""Learning-rate schedules as text: ``step:0=1e-2,30=1e-3``, ``cosine:0.02``, ``slr``, ``P30F90,1e-2`` and the like.

How a pruned network is retrained decides its accuracy more than the pruning criterion does, so a schedule is an exact
object: its text stands in the report and gives it back.
"""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from prunec.compiler.recovery.schedule_curves import (
    CosineSchedule,
    OneCycle,
    Rewound,
    ScaledRestart,
    Schedule,
    StepSchedule,
)
from prunec.passes.errors import UsageError, did_you_mean

__all__ = [
    "KINDS",
    "WEIGHT_REWINDING",
    "OriginalUnknownError",
    "Schedule",
    "parse_schedule",
    "pruning_epoch",
    "untrained",
]

#: The halving rule: no stage is longer, and no stage has a lower learning rate.
HALVING_LONGEST_STAGE = 30
HALVING_LAST_LEARNING_RATE = Decimal("1e-5")
#: Learning-rate rewinding from the weights of the epoch that it rewinds to.
WEIGHT_REWINDING = "wr"
#: ``P30F90,1e-2``: pruned at epoch 30, then retrained for 90 by the halving rule from 1e-2 on.
_PRUNED_AT = re.compile(r"P(\d+)F(\d+),(.+)", re.IGNORECASE)
#: ``...+60``: the first stage is 60 epochs longer. Not the plus of 1e+2.
_LENGTHENED = re.compile(r"(.*[^e])\+(\d+)", re.IGNORECASE)


class OriginalUnknownError(UsageError):
    """The schedule derives from the dense network's own, which nothing tells."""


class Request(NamedTuple):
    """What a schedule is built from.

    Attributes:
        text: the whole text.
        arguments: the part of it after the colon.
        epochs: length of the run, where it is known.
        original: the schedule that the dense network was trained with, where it is known.
    """

    text: str
    arguments: str
    epochs: int | None
    original: Schedule | None

    def error(self, problem: str, hint: str | None = None) -> UsageError:
        """A usage error about this text."""
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
        """Numbers above 0, separated by commas; those that aren't given have a default."""
        given = [self.learning_rate(part) for part in self.arguments.split(",")] if self.arguments else []
        if len(given) > len(defaults):
            raise self.error(f"has {len(given)} values, and at most {len(defaults)} are expected.")
        return [*given, *defaults[len(given) :]]

    def known_original(self) -> tuple[Schedule, int]:
        """The dense network's schedule and its length."""
        if self.original is None or not self.original.epochs:
            raise OriginalUnknownError(
                f"The schedule {self.text!r} derives from the dense network's own, and nothing tells that one.",
                hint='Tell it under [model] in prunec.toml: pretraining = {epochs = 90, schedule = "step:..."}.',
            )
        return self.original, int(self.original.epochs)

    def length(self) -> int:
        """Length of the run, which this kind of schedule depends on."""
        if self.epochs is None:
            raise self.error("depends on the length of the run: give the number of epochs.")
        return self.epochs


def _step(request: Request) -> Schedule:
    stages = []
    for entry in request.arguments.split(","):
        start, equals, rate = entry.partition("=")
        if not equals:
            raise request.error(f"has the entry {entry!r}; expected EPOCH=LEARNING_RATE.")
        stages.append((request.number(start, "epoch"), request.learning_rate(rate)))
    starts = [start for start, _ in stages]
    if starts[0] != 0:
        raise request.error(f"starts at epoch {starts[0]:g}; its first entry must be for epoch 0.")
    if any(after <= before for before, after in pairwise(starts)):
        raise request.error("names epochs that don't increase.")
    if request.epochs is not None and starts[-1] >= request.epochs:
        raise request.error(
            f"has an entry for epoch {starts[-1]:g}, which a run of {request.epochs} epochs never reaches.",
            hint="Train longer, or move or remove that entry.",
        )
    return StepSchedule(request.text, request.epochs, tuple(stages))


def _cosine(request: Request) -> Schedule:
    peak, *rest = request.arguments.split(",")
    if len(rest) > 1:
        raise request.error("has too many values; expected cosine:LEARNING_RATE or cosine:LEARNING_RATE,MINIMUM.")
    highest = request.learning_rate(peak)
    lowest = request.number(rest[0], "minimum") if rest else 0.0
    if lowest > highest:
        raise request.error(f"has a minimum above its learning rate ({lowest:g} > {highest:g}).")
    return CosineSchedule(text=request.text, epochs=request.length(), peak=highest, minimum=lowest)


def _constant(request: Request) -> Schedule:
    return StepSchedule(request.text, request.epochs, ((0, request.learning_rate(request.arguments)),))


def _halving(request: Request) -> Schedule:
    """Half of the epochs left to each learning rate, at most 30; each a tenth of the last, down to 1e-5."""
    request.learning_rate(request.arguments)
    rate, start, epochs = Decimal(request.arguments), 0, request.length()
    stages = [(start, float(rate))]
    while rate / 10 >= HALVING_LAST_LEARNING_RATE:
        # The last stage is not in this loop: it takes whatever is left.
        start += min(HALVING_LONGEST_STAGE, math.ceil((epochs - start) / 2))
        rate /= 10
        if start >= epochs:
            break
        stages.append((start, float(rate)))
    return StepSchedule(request.text, epochs, tuple(stages))


def _fine_tuning(request: Request) -> Schedule:
    """The last learning rate of the dense network's own training, or one that is given, all along."""
    if request.arguments:
        return _constant(request)
    original, epochs = request.known_original()
    rate = original.learning_rate(epochs - 1)
    return StepSchedule(request.text, request.epochs, ((0, rate),))


def _rewinding(request: Request) -> Schedule:
    """The last epochs of the dense network's own schedule."""
    if request.arguments:
        raise request.error("has values, and rewinding takes none.")
    original, whole = request.known_original()
    length = request.length()
    start = whole - length
    if start < 0:
        raise request.error(
            f"rewinds {length} epochs, and the dense network was trained for {whole}.", hint="Retrain no longer."
        )
    if not isinstance(original, StepSchedule):
        return Rewound(request.text, length, original, start)
    later = [(epoch - start, rate) for epoch, rate in original.stages if epoch > start]
    return StepSchedule(request.text, length, ((0, original.learning_rate(start)), *later))


def _scaled_restart(request: Request) -> Schedule:
    high, low, first, second = request.values(0.1, 0.001, 0.5, 0.75)
    if not first < second < 1:
        raise request.error("has drops that are no increasing shares of the run.", hint="slr:0.1,0.001,0.5,0.75")
    return ScaledRestart(request.text, request.length(), high, low, first, second)


def _one_cycle(request: Request) -> Schedule:
    return OneCycle(request.text, request.length(), *request.values(0.1))


#: Kind of schedule -> what builds it. A new kind is a new entry.
KINDS: dict[str, Callable[[Request], Schedule]] = {
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
#: Kinds that need no values.
_BARE = ("ft", "lrw", WEIGHT_REWINDING, "slr", "clr")
_EXAMPLES = "step:0=1e-2,30=1e-3, cosine:0.02, constant:1e-3, halving:1e-2, slr or P30F90,1e-2"


def parse_schedule(text: str, *, epochs: int | None = None, original: Schedule | None = None) -> Schedule:
    """The schedule that a text names: a kind, a colon, its values.

    | text | learning rate |
    |---|---|
    | ``step:0=1e-2,30=1e-3`` | piecewise constant, from these epochs on |
    | ``cosine:0.02`` or ``cosine:0.02,1e-4`` | half a cosine down to 0 or to a minimum |
    | ``constant:1e-3`` | one |
    | ``halving:1e-2`` | half of the epochs left to each, at most 30; each a tenth of the last, down to 1e-5 |
    | ``P30F90,1e-2`` | ``halving:1e-2`` over 90 epochs, of a network pruned at epoch 30 |
    | ``ft`` or ``ft:1e-3`` | fine-tuning: the last of the dense network's own, or a given one |
    | ``lrw`` | learning-rate rewinding: the last epochs of the dense network's own |
    | ``wr`` | weight rewinding: the same from the weights of that epoch, given as ``early`` |
    | ``slr`` or ``slr:0.1,0.001,0.5,0.75`` | scaled restarting: highest, lowest, shares of the run at which it drops |
    | ``clr`` or ``clr:0.1`` | cyclic restarting in one cycle: highest |

    Where stages are constant, ``+60`` at the end makes the first one 60 epochs longer; they are part of ``epochs``.

    Args:
        text: as above.
        epochs: length of the run; all but ``step``, ``constant`` and ``ft`` need it or, like P30F90, say it.
        original: the schedule of the dense network's own training, for kinds that derive theirs from it.

    Raises:
        UsageError: an unknown kind, values that make no schedule, or a change that the run never reaches.
        OriginalUnknownError: it needs ``original``.
    """
    text = "".join(text.split())
    if epochs is not None and epochs < 1:
        raise UsageError(f"A run must have at least 1 epoch, got {epochs}.")
    if (longer := _LENGTHENED.fullmatch(text)) is not None:
        return _lengthened(text, longer[1], int(longer[2]), epochs, original)
    if (pruned := _PRUNED_AT.fullmatch(text)) is not None:
        if epochs not in (None, int(pruned[2])):
            raise UsageError(f"The schedule {text!r} is of {pruned[2]} epochs, and the run of {epochs}.")
        return _halving(Request(text, pruned[3], int(pruned[2]), original))
    kind, colon, arguments = text.partition(":")
    if kind not in KINDS:
        raise UsageError(f"The schedule {text!r} is of an unknown kind.", hint=did_you_mean(kind, KINDS))
    if not arguments and (colon or kind not in _BARE):
        raise UsageError(f"The schedule {text!r} has no learning rate.", hint=f"For example {_EXAMPLES}.")
    return KINDS[kind](Request(text, arguments, epochs, original))


def untrained() -> Schedule:
    """The schedule of a network with random weights: of no epochs."""
    return StepSchedule("untrained", 0, ())


def pruning_epoch(text: str) -> int | None:
    """The epoch at which ``P30F90,1e-2`` prunes; None for other schedules."""
    match = _PRUNED_AT.match("".join(text.split()))
    return int(match[1]) if match is not None else None


def _lengthened(text: str, base: str, more: int, epochs: int | None, original: Schedule | None) -> Schedule:
    """A schedule of constant stages whose first one is so many epochs longer."""
    if epochs is not None and epochs <= more:
        raise UsageError(
            f"The schedule {text!r} makes its first stage {more} epochs longer, and the run has {epochs} in all.",
            hint="The epochs of a run include them.",
        )
    schedule = parse_schedule(base, epochs=None if epochs is None else epochs - more, original=original)
    if not isinstance(schedule, StepSchedule):
        raise UsageError(f"The schedule {text!r} has no first stage of constant learning rate to make longer.")
    first, *later = schedule.stages
    length = None if schedule.epochs is None else schedule.epochs + more
    stages = (first, *((start + more, rate) for start, rate in later))
    return replace(schedule, text=text, epochs=length, stages=stages)
