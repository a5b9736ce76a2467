"""The closed loop of goals in time: choose widths, measure the network of these widths, correct the goal, choose again.

Nothing is trained in it: the time of a network depends on its widths and not on its weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunec.compiler.facts.costs import Timed, TimeGoal, TimeTry
from prunec.passes.allocation.budgets import SAVED
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.base import PassResult
from prunec.passes.errors import OutOfReachError, UsageError
from prunec.passes.unknown import Unknown
from prunec.runtime.latency import LatencyComparison

#: Corrections of a goal at most.
CORRECTIONS = 2
#: Share of the goal by which a measurement may miss it.
CLOSE_ENOUGH = 0.02
#: Least and largest share of a correction that a network is taken to follow.
_SLOPES = 0.2, 1.5
#: By so little the fastest that is possible is loosened, so that rounding doesn't put it out of reach.
_NOISE = 1e-6


@dataclass(frozen=True)
class SizeChoice:
    """Widths that were chosen: the pruned network, and the cost model's prediction for it."""

    result: PassResult
    predicted_speedup: float
    predicted_ms: float

    @property
    def decided_by(self) -> str:
        """What decides the widths in place of the goal in time, in words; empty where that does."""
        if not self.result.modified:
            return "the network keeps everything"
        aim = self.result.aim
        return "" if aim is None or aim.what == SAVED["latency_ms"] else f"the goal for the {aim.what} decides"

    @property
    def sizes(self) -> ChosenSizes:
        """The chosen sizes of all groups."""
        branches = self.result.plan.removed_branches if self.result.plan is not None else ()
        widths = {group["name"]: group["kept"] for group in self.result.stats["groups"]}
        return ChosenSizes(widths, tuple(branch.name for branch in branches))


def close_the_loop(
    goal: TimeGoal, choose: Callable[[float], SizeChoice], measure: Callable[[SizeChoice], LatencyComparison | Unknown]
) -> tuple[SizeChoice, Timed]:
    """Choose widths for a goal, and correct the goal by what they measure, as long as that leads to other widths.

    Args:
        goal: The goal.
        choose: Chooses widths for the goal tightened by a factor; raises `UsageError` where nothing reaches that.
        measure: Measures the network of some widths in turns with the dense one.

    Returns:
        The choice that comes nearest to the goal, and what was tried.

    Raises:
        UsageError: Nothing reaches the goal: a count stands in the way, or the fastest widths were measured.
    """
    tightened, first, refusal = _first(choose)
    choices, tries, why_ended = [first], list[TimeTry](), ""
    steps: list[tuple[float, float]] = []
    while True:
        choice = choices[-1]
        measured = measure(choice)
        tries.append(TimeTry(tightened, choice.predicted_speedup, choice.predicted_ms, measured))
        if isinstance(measured, Unknown):
            why_ended = measured.reason
            break
        reached = goal.reached(measured.speedup, measured.compiled.median)
        if abs(reached - 1) <= CLOSE_ENOUGH:
            break
        if reached > 1 and choice.decided_by:
            why_ended = f"the goal in time is met with room to spare, and {choice.decided_by}."
            break
        if len(tries) > CORRECTIONS:
            why_ended = f"the goal was corrected {CORRECTIONS} times."
            break
        steps.append((math.log(tightened), math.log(reached)))
        tightened = _corrected(steps)
        try:
            corrected = choose(tightened)
        except UsageError as error:
            why_ended = f"corrected by {tightened:.3g}x it can't be reached: {error.message}"
            break
        if any(corrected.sizes == earlier.sizes for earlier in choices):
            why_ended = f"corrected by {tightened:.3g}x it leads to widths that were tried."
            break
        choices.append(corrected)
    chosen = min(range(len(tries)), key=lambda position: _distance(goal, tries[position].measured))
    if refusal is not None:
        _check_reached(goal, tries[chosen].measured, refusal)
    return choices[chosen], Timed(goal, tuple(tries), chosen, why_ended)


def _first(choose: Callable[[float], SizeChoice]) -> tuple[float, SizeChoice, OutOfReachError | None]:
    """The first choice, with its factor: where the cost model says that the goal is out of reach, the fastest there is.

    A model may be wrong there, and only a measurement of the fastest widths tells.
    """
    try:
        return 1.0, choose(1.0), None
    except OutOfReachError as error:
        if error.possible is None:
            raise
        loosened = error.possible * (1 - _NOISE)
        return loosened, choose(loosened), error


def _check_reached(goal: TimeGoal, measured: LatencyComparison | Unknown, refusal: OutOfReachError) -> None:
    """Refuse a goal that the measured network, the fastest that the cost model knows, misses too."""
    if isinstance(measured, Unknown):
        raise refusal
    if goal.reached(measured.speedup, measured.compiled.median) < 1 - CLOSE_ENOUGH:
        reached = f"{measured.speedup:.2f}x, {measured.compiled.median:.4g} ms, were measured at the fastest widths"
        raise OutOfReachError(f"{refusal.message}\n{reached}.", hint=refusal.hint) from refusal


def _corrected(steps: Sequence[tuple[float, float]]) -> float:
    """The factor to tighten a goal by, from logarithms of the factors that were tried and of the shares they reached.

    Between one that missed the goal and one that passed it by interpolation; else by the secant through the last two,
    its slope bounded, or from a single one by what it was off.
    """
    missed = [step for step in steps if step[1] < 0]
    passed = [step for step in steps if step[1] > 0]
    if not missed or not passed:
        (factor, reached), slope = steps[-1], 1.0
        if len(steps) > 1 and factor != steps[-2][0]:
            least, largest = _SLOPES
            slope = min(max((reached - steps[-2][1]) / (factor - steps[-2][0]), least), largest)
        return math.exp(factor - reached / slope)
    (low, short), (high, over) = max(missed, key=lambda step: step[1]), min(passed, key=lambda step: step[1])
    return math.exp(low + (high - low) * short / (short - over))


def _distance(goal: TimeGoal, measured: LatencyComparison | Unknown) -> tuple[bool, float]:
    """How far a measurement is from a goal: what misses it beyond the measurement's error is behind what meets it."""
    if isinstance(measured, Unknown):
        return True, math.inf
    reached = goal.reached(measured.speedup, measured.compiled.median)
    error = measured.speedup_interval[1] / measured.speedup
    return reached * error < 1, abs(math.log(reached))
