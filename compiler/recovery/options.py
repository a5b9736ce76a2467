"""The options of a recovery finetune, as a recipe gives them."""

import contextlib
from dataclasses import dataclass
from typing import ClassVar, Literal

from prunec.compiler.recovery.schedules import OriginalUnknownError, parse_schedule
from prunec.passes.errors import UsageError, did_you_mean

_KEEP = ("best", "last")


@dataclass(frozen=True)
class Recover:
    """Retrain a pruned network with SGD, its sparsity masks held.

    Attributes:
        epochs: passes over the training data.
        schedule: learning rate over the epochs (`parse_schedule`).
        batch_size: samples per step.
        momentum: in [0, 1).
        nesterov: Nesterov's form of momentum.
        weight_decay: L2 penalty on all parameters.
        distill: temperature at which the network also learns from the dense one's outputs; 0 turns that off.
        distill_weight: its share of the loss, up to 1; the loss on the labels has the rest.
        keep: "best" keeps the epoch that is best on the validation data (of equals the latest), "last" the
            last.

    Raises:
        UsageError: a value is out of its range.
    """

    name: ClassVar[str] = "recover"

    epochs: int
    schedule: str = "cosine:0.02"
    batch_size: int = 128
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    distill: float = 0.0
    distill_weight: float = 0.9
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "false where momentum is 0"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "at least 0"),
            "distill": (0 <= self.distill < float("inf"), "a temperature above 0, or 0 for none"),
            "distill_weight": (0 < self.distill_weight <= 1, "above 0 and at most 1"),
        }
        for option, (holds, expected) in ranges.items():
            if not holds:
                raise UsageError(f"recover: {option} must be {expected}, got {getattr(self, option)}.")
        if self.keep not in _KEEP:
            raise UsageError(f"recover: keep = {self.keep!r} is unknown.", hint=did_you_mean(self.keep, _KEEP))
        with contextlib.suppress(OriginalUnknownError):  # it is known when the training starts
            parse_schedule(self.schedule, epochs=self.epochs)
