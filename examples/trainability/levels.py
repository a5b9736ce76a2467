"""The levels at which a row and training from scratch may be compared, computed from run cards of these very runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from outcomes import Outcome  # type: ignore[import-not-found]
from rows import DENSE, SCRATCH  # type: ignore[import-not-found]
from training import AUGMENT, BATCH_SIZE, MOMENTUM, WEIGHT_DECAY, Setup  # type: ignore[import-not-found]

from prunec.compiler.fairness import RunCard, compare_pair
from prunec.compiler.recovery.schedules import parse_schedule

#: What is the same in all runs.
COMMON = {
    "data": f"Fashion-MNIST, {Setup.train_images} training and {Setup.test_images} test images",
    "setup": "examples/trainability",  # options that are not named below are the same in all runs
    "metric": "top1",
    "architecture": "ResNet of 3 basic blocks for 28x28 images",
    "pruning": {"epochs": 0},
    "training": {
        "optimizer": "SGD",
        "momentum": MOMENTUM,
        "nesterov": False,
        "weight_decay": WEIGHT_DECAY,
        "batch_size": BATCH_SIZE,
        "loss": "cross-entropy",
        "augmentation": list(AUGMENT),
        "ema": "none",
        "clip_norm": "none",
        "precision": "fp32",
    },
    "distilled": False,
    "int8": False,
}
#: The level of table 4; what holds beside it, the tags, is printed where it doesn't hold.
TABLE_LEVEL = "S4.2"


@dataclass(frozen=True)
class Levels:
    """How two rows may be compared.

    Attributes:
        level: The highest level that holds.
        tags: SX-A and SX-B, where they hold.
        differs: Sentences on what differs.
    """

    level: str
    tags: tuple[str, ...]
    differs: tuple[str, ...]

    @property
    def mark(self) -> str:
        """The mark in the talk's table: the strictest that holds."""
        return self.level if self.level == TABLE_LEVEL else next(iter(self.tags), self.level)


def levels(row: Sequence[Outcome], scratch: Sequence[Outcome]) -> Levels:
    """The levels of a row, all seeds, against training from scratch at the same ratio."""
    pair = compare_pair(card(row), card(scratch))
    return Levels(pair.level, pair.tags, pair.differs)


def card(row: Sequence[Outcome]) -> RunCard:
    """The run card of a row, all seeds."""
    arm, accuracies = row[0].arm, {outcome.seed: outcome.top1 for outcome in row}
    is_scratch = arm.pruned_after == 0
    return RunCard.model_validate(
        {
            **COMMON,
            "name": f"{arm.row} at {arm.ratio:g}",
            "base": SCRATCH if is_scratch else f"the dense networks of this example after epoch {arm.pruned_after}",
            "method": SCRATCH if is_scratch else f"{arm.criterion}, conv1 of every block",
            "speedup": row[0].speedup,
            "pretraining": _stage(arm.pruned_after, DENSE),
            "finetuning": _stage(arm.epochs, arm.schedule),
            "accuracy": {
                "mean": fmean(accuracies.values()),
                "standard_deviation": stdev(accuracies.values()),
                "runs": len(accuracies),
                "by_seed": accuracies,
            },
        }
    )


def _stage(epochs: int, schedule: str) -> dict[str, object]:
    """The first epochs of a schedule as a stage of a card."""
    return {"epochs": epochs, "learning_rates": parse_schedule(schedule).trace(epochs)}
