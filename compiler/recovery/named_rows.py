"""Retrainings by the names that the published tables give them: ``P30F90,1e-2`` and ``P30/12.06F90,1e-1``.

Source: Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?" (2023), tables 4 and 5 and
appendix A: training from scratch takes 120 epochs by `SCRATCH_SCHEDULE`; rows marked S4.2 see its learning rates in
all.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from prunec.compiler.recovery.bounds import MAX_EPOCHS
from prunec.compiler.recovery.schedule_curves import StepSchedule
from prunec.passes.errors import UsageError

#: The schedule that the paper's networks are trained by from scratch.
SCRATCH_SCHEDULE = StepSchedule(
    "step:0=0.1,30=0.01,60=0.001,90=1e-4,105=1e-5", 120, ((0, 0.1), (30, 0.01), (60, 0.001), (90, 1e-4), (105, 1e-5))
)
_ROW = re.compile(r"P([\d./]+k?)F(\d+),(.+)", re.IGNORECASE)
_EPOCHS = re.compile(r"(\d+(?:\.\d+)?)(?:/(\d+(?:\.\d+)?))?")
#: The letter that stands for the speed-up, as in P30/kF90 and rest(30/k).
_LETTER = re.compile(r"(?<=\d/)k(?=F\d|\))", re.IGNORECASE)


class NamedRow(NamedTuple):
    """A retraining as its name tells it.

    Attributes:
        pruned_at: Epochs of the dense training before the network was pruned.
        epochs: Epochs of the retraining.
        rate: Its first learning rate, as written; ``+60`` may stand behind.
    """

    pruned_at: Fraction
    epochs: int
    rate: str

    @property
    def is_rest_of_scratch(self) -> bool:
        """Whether it ends where training from scratch does, and begins at the learning rate that that has there."""
        ends_there = self.pruned_at + self.epochs == SCRATCH_SCHEDULE.epochs
        return ends_there and float(self.rate) == SCRATCH_SCHEDULE.learning_rate(float(self.pruned_at))


def named_row(text: str) -> NamedRow | None:
    """The row that a text without blanks names; None for other schedules.

    Raises:
        UsageError: The speed-up stands as a letter or is 0, or there is no retraining.
    """
    match = _ROW.fullmatch(text)
    if match is None:
        return None
    if match[2].strip("0") == "":
        raise UsageError(f"The schedule {text!r} retrains for 0 epochs.", hint="P30F90,1e-2 retrains for 90.")
    return NamedRow(exact_epochs(match[1], text), int(match[2]), match[3])


def exact_epochs(number: str, text: str) -> Fraction:
    """The number of epochs that a decimal number, or a quotient of two, gives.

    Args:
        number: A number such as "15", "2.49" or "30/12.06".
        text: The schedule in which it stands, for messages.

    Raises:
        UsageError: It is no such number.
    """
    match = _EPOCHS.fullmatch(number)
    if match is None or not Fraction(match[2] or 1):
        hint = "Expected a number such as 15, 2.49 or 30/12.06."
        if number.lower().endswith("k"):
            hint = "k is the speed-up: write its number, as in P30/12.06F90,1e-1."
        raise UsageError(f"The schedule {text!r} names {number!r} epochs.", hint=hint)
    epochs = Fraction(match[1]) / Fraction(match[2] or 1)
    if epochs > MAX_EPOCHS:
        raise UsageError(f"The schedule {text!r} names {number} epochs; there may be {MAX_EPOCHS}.")
    return epochs


def pruning_epoch(text: str) -> float | None:
    """The epoch at which ``P30F90,1e-2`` prunes, with its fraction; None for other schedules."""
    row = named_row("".join(text.split()))
    return None if row is None else float(row.pruned_at)


def with_speedup(text: str, speedup: float) -> str:
    """The same schedule with a number in place of the letter k: ``P30/kF90,1e-1`` as ``P30/12.06F90,1e-1``.

    Args:
        text: A schedule, with the letter or without.
        speedup: Dense over compiled multiply-accumulates.
    """
    return _LETTER.sub(f"{speedup:.12f}".rstrip("0").rstrip("."), text)
