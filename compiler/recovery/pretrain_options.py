"""The options of the dense network's own training, where a run makes it. Imports no torch."""

from dataclasses import dataclass
from typing import ClassVar

from prunec.compiler.recovery.bounds import MAX_EPOCHS
from prunec.compiler.recovery.schedules import Schedule, parse_schedule, untrained
from prunec.passes.errors import UsageError
from prunec.passes.seeds import check_seed


@dataclass(frozen=True)
class Pretrain:
    """Train the dense network of the factory from fresh weights, in place of the checkpoint's.

    All else is as in the last ``recover`` of the pipeline, such as the batch size and the optimizer; nothing teaches,
    no hooks take part, and the weights of the last step are kept.

    Attributes:
        epochs: Passes over the training data; 0 leaves random weights, for masks at initialisation.
        schedule: Learning rate over them (`parse_schedule`); none for 0 epochs.
        keep_step: Optimizer steps after which the weights are kept, to which ``recover{schedule=wr,early=pretrain}``
            goes back; 0 for the random ones.
        seed: Seed of the weights and of the training; None for the seed of the run.

    Raises:
        UsageError: A value is out of its range, or there is no such schedule.
    """

    name: ClassVar[str] = "pretrain"

    epochs: int
    schedule: str = ""
    keep_step: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", "".join(self.schedule.split()))  # blanks don't count
        ranges = {
            "epochs": (0 <= self.epochs <= MAX_EPOCHS, f"at least 0 and at most {MAX_EPOCHS}"),
            "keep_step": (self.keep_step >= 0 and (self.epochs or not self.keep_step), "a number of steps of the run"),
        }
        for option, (holds, expected) in ranges.items():
            if not holds:
                raise UsageError(f"pretrain: {option} must be {expected}, got {getattr(self, option)}.")
        if bool(self.schedule) != bool(self.epochs):
            raise UsageError(
                f"pretrain: {self.epochs} epochs have {'a' if self.schedule else 'no'} schedule.",
                hint="For example pretrain{epochs=12,schedule=cosine:0.1}, or pretrain{epochs=0} for random weights.",
            )
        _ = self.learning_rates  # refuses what is no schedule
        check_seed(self.name, self.seed)

    @property
    def learning_rates(self) -> Schedule:
        """The schedule; that of random weights for 0 epochs."""
        return parse_schedule(self.schedule, epochs=self.epochs) if self.epochs else untrained()
