"""The schedule where a recipe names none: it depends on how much was pruned.

How large the learning rate of the retraining is decides more than which filters went, and the more goes the larger it
must be (Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?", 2023). One cycle that restarts
at a large rate did best of the schedules compared by Le and Hua ("Network Pruning That Matters?", ICLR 2021).
"""

from dataclasses import dataclass

from prunec.compiler.recovery.schedules import Schedule

#: Of a recipe that leaves the choice to `choose_schedule`.
AUTO = "auto"
#: Highest learning rate that dense networks are trained with by SGD, where their own isn't known.
USUAL_LEARNING_RATE = 0.1
#: (up to this share of the MACs pruned, the cycle's highest rate as a share of the dense training's highest).
TABLE = ((0.3, 0.2), (0.65, 0.5), (1.0, 1.0))
#: Beyond this share, pruning earlier in the dense training is worth the trouble.
EARLIER = 0.85


@dataclass(frozen=True)
class Choice:
    """A schedule and why it is this one.

    Attributes:
        schedule: as text.
        reason: in words, for the report.
    """

    schedule: str
    reason: str


def choose_schedule(pruned_fraction: float, original: Schedule | None) -> Choice:
    """The default schedule.

    Args:
        pruned_fraction: share of the dense MACs that filter pruning removed, 0 to 1.
        original: of the dense network's own training, where it is known.
    """
    highest = _highest(original)
    share = next(share for limit, share in TABLE if pruned_fraction <= limit)
    trained = original is not None and bool(original.epochs)
    known = "the highest rate of the dense training" if trained else "usual where the dense one is unknown"
    reason = (
        f"filter pruning removed {100 * pruned_fraction:.0f} % of the MACs: one cycle up to {share:g} times "
        f"{highest:g}, {known}"
    )
    if pruned_fraction > EARLIER:
        reason += "; so much is better pruned from an earlier checkpoint of the dense training"
    return Choice(f"clr:{share * highest:.6g}", reason)


def _highest(original: Schedule | None) -> float:
    if original is None or not original.epochs:
        return USUAL_LEARNING_RATE
    return max(rate for _, rate in original.trace(int(original.epochs), steps_per_epoch=10))
