"""The schedule where a recipe names none: it depends on how much was pruned.

How large the learning rate of the retraining is decides more than which filters went, and the more goes the larger it
must be (Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?", 2023). One cycle that restarts
at a large rate did best of the schedules compared by Le and Hua ("Network Pruning That Matters?", ICLR 2021).
"""

from dataclasses import dataclass

from prunec.compiler.recovery.schedules import Schedule

#: The schedule of a recipe that leaves the choice to `choose_schedule`.
AUTO = "auto"
#: Highest learning rate that dense networks are trained with by SGD, where their own isn't known.
USUAL_LEARNING_RATE = 0.1
#: (up to this share of the MACs pruned, the cycle's highest rate as a share of the dense training's highest).
TABLE = ((0.3, 0.2), (0.65, 0.5), (1.0, 1.0))
#: Pruned share beyond which pruning earlier in the dense training is worth the trouble.
EARLIER = 0.85


@dataclass(frozen=True)
class Choice:
    """A schedule as text, and in words for the report why it is this one."""

    schedule: str
    reason: str


def choose_schedule(pruned_fraction: float, original: Schedule | None) -> Choice:
    """The default schedule.

    Args:
        pruned_fraction: Share of the dense MACs that filter pruning removed, 0 to 1.
        original: The schedule of the dense network's own training, where it is known.
    """
    highest, source = USUAL_LEARNING_RATE, "usual where the dense one is unknown"
    if original is not None and original.epochs:
        highest = max(rate for _, rate in original.trace(original.epochs, steps_per_epoch=10))
        source = "the highest rate of the dense training"
    share = next(share for limit, share in TABLE if pruned_fraction <= limit)
    reason = (
        f"filter pruning removed {100 * pruned_fraction:.0f} % of the MACs: one cycle up to {share:g} times "
        f"{highest:g}, {source}"
    )
    if pruned_fraction > EARLIER:
        reason += "; so much is better pruned from an earlier checkpoint of the dense training"
    return Choice(f"clr:{share * highest:.6g}", reason)
