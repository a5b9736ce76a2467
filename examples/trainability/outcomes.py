"""What became of the runs, and the file that keeps it: one line per run, added as runs end."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rows import Arm  # type: ignore[import-not-found]

COLUMNS = (
    *("row", "ratio", "seed", "criterion", "pruned_after", "epochs", "schedule"),
    *("speedup", "top1", "trainability_accuracy", "top1_by_epoch"),
)


@dataclass(frozen=True)
class Outcome:
    """A run.

    Attributes:
        arm: What was done.
        seed: Seed of all random choices.
        speedup: Dense over pruned multiply-accumulates.
        top1: Test accuracy at the end, 0 to 1.
        trainability_accuracy: Mean test accuracy over the first stage: whole epochs of it, one at least.
        top1_by_epoch: Test accuracy after every epoch, 0 to 1.
    """

    arm: Arm
    seed: int
    speedup: float
    top1: float
    trainability_accuracy: float
    top1_by_epoch: tuple[float, ...]

    @property
    def key(self) -> tuple[str, float, int]:
        """What tells it from all other runs."""
        return self.arm.row, self.arm.ratio, self.seed


def read(path: Path) -> list[Outcome]:
    """The finished runs that a file holds; none where there is no file. A last line that was cut off doesn't count."""
    if not path.is_file():
        return []
    complete, _, _ = path.read_text().rpartition("\n")
    return [_parsed(line) for line in csv.DictReader(io.StringIO(complete))]


def write(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write all runs, in place of what the file held."""
    path.write_text("".join(map(_line, [COLUMNS, *map(_values, outcomes)])))


def add(outcome: Outcome, path: Path) -> None:
    """Add a run."""
    with path.open("a") as file:
        file.write(_line(_values(outcome)))


def _values(outcome: Outcome) -> list[object]:
    values = {
        **asdict(outcome.arm),
        "seed": outcome.seed,
        "speedup": f"{outcome.speedup:.6g}",
        "top1": f"{outcome.top1:.4f}",
        "trainability_accuracy": f"{outcome.trainability_accuracy:.4f}",
        "top1_by_epoch": " ".join(f"{value:.4f}" for value in outcome.top1_by_epoch),
    }
    return [values[column] for column in COLUMNS]


def _line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _parsed(line: dict[str, str]) -> Outcome:
    arm = Arm(
        line["row"], float(line["ratio"]), int(line["pruned_after"]), int(line["epochs"]), line["schedule"],
        line["criterion"],
    )  # fmt: skip
    return Outcome(
        arm=arm,
        seed=int(line["seed"]),
        speedup=float(line["speedup"]),
        top1=float(line["top1"]),
        trainability_accuracy=float(line["trainability_accuracy"]),
        top1_by_epoch=tuple(map(float, line["top1_by_epoch"].split())),
    )
