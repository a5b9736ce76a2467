"""The schedule where a recipe names none: it depends on how much was pruned.

How large the learning rate of the retraining is decides more than which filters went, and the more goes the larger it
must be (Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?", 2023). One cycle that restarts
at a large rate did best of the schedules compared by Le and Hua ("Network Pruning That Matters?", ICLR 2021).
"""

from dataclasses import dataclass

from prunec.compiler.recovery.optimizer_kinds import KINDS, optimizer_title, rates_mean_the_same
from prunec.compiler.recovery.rate_pieces import highest
from prunec.compiler.recovery.schedule_curves import Schedule, rounded_rate
from prunec.passes.errors import UsageError

#: (up to this share of the MACs pruned, the cycle's highest rate as a share of the dense training's highest).
TABLE = ((0.3, 0.2), (0.65, 0.5), (1.0, 1.0))
#: Pruned share beyond which pruning earlier in the dense training is worth the trouble.
EARLIER = 0.85


@dataclass(frozen=True)
class Choice:
    """A schedule as text, and in words for the report why it is this one."""

    schedule: str
    reason: str


def choose_schedule(
    pruned_fraction: float, original: Schedule | None, optimizer: str = "sgd", dense_optimizer: str | None = None
) -> Choice:
    """The default schedule.

    Args:
        pruned_fraction: Share of the dense MACs that filter pruning removed, 0 to 1.
        original: The schedule of the dense network's own training, where it is known.
        optimizer: The optimizer of the retraining, as recipes name it.
        dense_optimizer: The optimizer of the dense training, where it is known; rates whose optimizer isn't known count
            as SGD's.

    Raises:
        UsageError: The optimizer is the user's own, and the dense network wasn't trained with it.
    """
    rate, source = _highest_rate(original, optimizer, dense_optimizer)
    share = next(share for limit, share in TABLE if pruned_fraction <= limit)
    reason = (
        f"filter pruning removed {100 * pruned_fraction:.0f} % of the MACs: one cycle up to {share:g} times "
        f"{rate:g}, {source}"
    )
    if pruned_fraction > EARLIER:
        reason += "; so much is better pruned from an earlier checkpoint of the dense training"
    return Choice(f"clr:{rounded_rate(share * rate, rate)!r}", reason)


def _highest_rate(original: Schedule | None, optimizer: str, dense_optimizer: str | None) -> tuple[float, str]:
    """The highest rate of a dense training by an optimizer, and in words where it is from."""
    title = optimizer_title(optimizer)
    if original is not None and original.epochs and rates_mean_the_same(optimizer, dense_optimizer or "sgd"):
        assumed = "" if dense_optimizer else ", taken to be one of SGD since nothing states its optimizer"
        return highest(original.pieces(original.epochs)), f"the highest rate of the dense training{assumed}"
    if optimizer not in KINDS:
        raise UsageError(
            f"recover: no learning rate is known to fit the optimizer {title}.",
            hint='Name a schedule, such as schedule = "cosine:1e-3", or under [model] the dense training by it: '
            f'pretraining = {{epochs = 90, schedule = "...", optimizer = "{optimizer}"}}.',
        )
    return KINDS[optimizer].usual_learning_rate, f"usual by {title} where the rate of a dense training by it is unknown"
