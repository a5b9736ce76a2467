"""The closed loop of goals in time, on networks whose time is a formula."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.facts.costs import TimeGoal
from prunec.compiler.stages.closed_loop import CLOSE_ENOUGH, CORRECTIONS, WidthChoice, close_the_loop
from prunec.passes.base import PassResult
from prunec.passes.errors import UsageError
from prunec.passes.unknown import Unknown
from prunec.runtime.latency import LatencyComparison, Percentiles

DENSE_MS = 10.0
UNITS = 1000


def comparison(speedup: float, error: float = 0.001) -> LatencyComparison:
    dense, compiled = (Percentiles(ms, ms, ms) for ms in (DENSE_MS, DENSE_MS / speedup))
    return LatencyComparison(dense, compiled, speedup, (speedup * (1 - error), speedup * (1 + error)), 200)


def choices(goal: TimeGoal, step: int = 1) -> Callable[[float], WidthChoice]:
    """Chooses the widest network whose predicted time, its share of the units, is within the goal."""

    def choose(tightened: float) -> WidthChoice:
        share = min((1 / goal.speedup if goal.speedup else 1.0), (goal.ms / DENSE_MS if goal.ms else 1.0)) / tightened
        kept = int(UNITS * min(share, 1.0)) // step * step
        if kept < 1:
            raise UsageError("It can't be reached.")
        result = PassResult(None, True, {"groups": [{"name": "g", "kept": kept}]})  # type: ignore[arg-type]
        return WidthChoice(result, UNITS / kept, DENSE_MS * kept / UNITS)

    return choose


def machine(true_ms: Callable[[float], float]) -> Callable[[WidthChoice], LatencyComparison]:
    """Measures what a share of the units truly takes."""
    return lambda choice: comparison(DENSE_MS / true_ms(choice.kept["g"] / UNITS))


@given(asked=st.floats(1.1, 4.0), bias=st.floats(0.8, 1.25), floor=st.floats(0.0, 0.1), in_ms=st.booleans())
def test_a_model_that_is_wrong_by_a_quarter_is_met_within_five_percent(
    asked: float, bias: float, floor: float, in_ms: bool
) -> None:
    """Time is bias * share + floor where share is predicted; the dense network takes what was asked in relation to."""
    goal = TimeGoal(None, DENSE_MS / asked) if in_ms else TimeGoal(asked, None)
    choice, timed = close_the_loop(goal, choices(goal), machine(lambda share: DENSE_MS * (bias * share + floor) / 1.0))
    assert 1 <= len(timed.tries) <= 1 + CORRECTIONS
    taken = timed.tries[timed.chosen].measured
    assert isinstance(taken, LatencyComparison)
    reached = goal.reached(taken.speedup, taken.compiled.median)
    first = timed.tries[0].measured
    assert isinstance(first, LatencyComparison)
    assert reached >= 0.95 or choice.kept["g"] == UNITS
    assert reached >= min(1 - CLOSE_ENOUGH, goal.reached(first.speedup, first.compiled.median))
    assert choice.predicted_ms == timed.tries[timed.chosen].predicted_ms


def test_a_good_model_is_not_corrected() -> None:
    goal = TimeGoal(2.0, None)
    _, timed = close_the_loop(goal, choices(goal), machine(lambda share: 1.01 * DENSE_MS * share))
    assert (len(timed.tries), timed.why_ended, timed.tries[0].tightened) == (1, "", 1.0)


def test_the_same_widths_are_not_measured_twice() -> None:
    goal = TimeGoal(2.0, None)
    _, timed = close_the_loop(goal, choices(goal, step=500), machine(lambda share: 1.1 * DENSE_MS * share))
    assert len(timed.tries) == 1
    assert "widths that were tried" in timed.why_ended or "can't be reached" in timed.why_ended


def test_what_a_correction_cannot_reach_ends_it_and_what_was_asked_raises() -> None:
    goal = TimeGoal(UNITS / 2, None)
    _, timed = close_the_loop(goal, choices(goal), machine(lambda share: 4 * DENSE_MS * share))
    assert "can't be reached" in timed.why_ended
    with pytest.raises(UsageError):
        close_the_loop(TimeGoal(2 * UNITS, None), choices(TimeGoal(2 * UNITS, None)), machine(lambda share: share))


def test_nothing_measured_leaves_the_first_choice() -> None:
    goal = TimeGoal(2.0, None)
    choice, timed = close_the_loop(goal, choices(goal), lambda _: Unknown("ONNX Runtime died."))
    assert (choice.kept, timed.chosen, timed.why_ended) == ({"g": UNITS // 2}, 0, "ONNX Runtime died.")


def test_of_tries_that_miss_differently_the_one_at_or_above_the_goal_is_taken() -> None:
    goal, speedups = TimeGoal(2.0, None), iter([1.94, 2.12, 1.95])
    _, timed = close_the_loop(goal, choices(goal), lambda _: comparison(next(speedups)))
    assert timed.chosen == 1
    assert timed.tries[1].tightened == pytest.approx(2.0 / 1.94)
    wide: Iterator[float] = iter([1.94, 2.12, 1.95])
    _, timed = close_the_loop(goal, choices(goal), lambda _: comparison(next(wide), error=0.05))
    assert timed.chosen == 2, "within the error of the measurement the nearest is"


def test_of_two_goals_the_one_that_is_reached_least_counts() -> None:
    goal = TimeGoal(2.0, 4.0)
    assert goal.reached(2.0, 5.0) == pytest.approx(0.8)
    assert goal.reached(1.5, 4.0) == pytest.approx(0.75)
