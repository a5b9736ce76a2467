"""The rows of table 4, and their schedules at small scale.

Source: Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?" (2023), table 4. PxFy,r is pruned
at epoch x of the dense training and retrained for y epochs from learning rate r on; in P30/kFy,r k is the speed-up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from prunec.compiler.recovery.named_rows import SCRATCH_SCHEDULE, pruning_epoch, with_speedup
from prunec.compiler.recovery.schedules import Schedule, parse_schedule

#: Epochs of the paper that one epoch here stands for.
PAPER_EPOCHS = 5
#: The dense network's name in the list of runs.
DENSE_ROW = "dense"
SCRATCH = "scratch"
ROWS = (
    SCRATCH,
    *("P15F105,1e-1", "P30F90,1e-2", "P45F75,1e-2", "P60F60,1e-3", "P75F45,1e-3", "P90F30,1e-4"),
    *("P30F90,1e-1", "P60F60,1e-2", "P90F30,1e-2"),
    *("P30/kF90,1e-1", "P30/kF90,1e-2"),
)
RATIOS = (0.5, 0.9)
#: Rows of table 5, whose first stage is longer, and networks that are retrained alike: at this ratio only.
EXTENDED_RATIO = 0.9
LONGER_ROWS = ("P60F60,1e-3+60", "P60F60,1e-3+180", "P90F30,1e-4+270")
SAME_SCHEDULE = "P60F60,1e-3"
OTHER_NETWORKS = ((0, "l1"), (30, "l1"), (90, "l1"), (30, "random"), (60, "random"), (90, "random"))


@dataclass(frozen=True)
class Arm:
    """One way to a pruned network.

    Attributes:
        row: Name in the table.
        ratio: Share of the filters that are pruned in the first convolution of every block.
        pruned_after: Epochs of dense training before that; 0 for random weights.
        epochs: Epochs of the retraining.
        schedule: Schedule of the retraining.
        criterion: Criterion by which filters are chosen.
    """

    row: str
    ratio: float
    pruned_after: int
    epochs: int
    schedule: str
    criterion: str = "l1"


def scaled(published: Schedule) -> tuple[int, str]:
    """Epochs and text of a schedule of constant stages, with every epoch divided by `PAPER_EPOCHS`."""
    assert published.epochs is not None, "a schedule of the paper says its length"
    pieces = published.pieces(published.epochs)
    stages = ",".join(f"{piece.start / PAPER_EPOCHS:g}={piece.first:g}" for piece in pieces)
    return round(published.epochs / PAPER_EPOCHS), f"step:{stages}"


#: Training from scratch, which is the dense training too.
EPOCHS, DENSE = scaled(SCRATCH_SCHEDULE)


def table_arms(speedups: Mapping[float, float]) -> list[Arm]:
    """The rows of table 4 at both ratios.

    Args:
        speedups: Dense over pruned multiply-accumulates, by ratio.
    """
    return [_arm(row, ratio, speedups[ratio]) for ratio in RATIOS for row in ROWS]


def extended_arms(speedups: Mapping[float, float]) -> list[Arm]:
    """Rows that are retrained for longer, and other networks under one schedule."""
    speedup = speedups[EXTENDED_RATIO]
    longer = [_arm(row, EXTENDED_RATIO, speedup) for row in LONGER_ROWS]
    epochs, schedule = scaled(parse_schedule(SAME_SCHEDULE))
    others = [
        Arm(name, EXTENDED_RATIO, epoch // PAPER_EPOCHS, epochs, schedule, criterion)
        for name, (epoch, criterion) in zip(other_names(), OTHER_NETWORKS, strict=True)
    ]
    return longer + others


def other_names() -> list[str]:
    """Names of the networks that are pruned otherwise and retrained as `SAME_SCHEDULE` is."""
    return [f"{SAME_SCHEDULE} of P{epoch} by {criterion}" for epoch, criterion in OTHER_NETWORKS]


def position(row: str) -> int:
    """Place of a row in tables."""
    return [DENSE_ROW, *ROWS, *LONGER_ROWS, *other_names()].index(row)


def _arm(row: str, ratio: float, speedup: float) -> Arm:
    if row == SCRATCH:
        return Arm(row, ratio, 0, EPOCHS, DENSE)
    published = with_speedup(row, speedup)
    epoch = pruning_epoch(published.partition("+")[0])
    assert epoch is not None, f"{row} names the epoch of its pruning"
    epochs, schedule = scaled(parse_schedule(published))
    return Arm(row, ratio, max(1, round(epoch / PAPER_EPOCHS)), epochs, schedule)
