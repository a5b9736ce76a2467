"""The closed loop of goals in time, on networks whose time is a formula."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.facts.costs import TimeGoal
from prunec.compiler.stages.closed_loop import CLOSE_ENOUGH, CORRECTIONS, SizeChoice, close_the_loop
from prunec.passes.allocation.budgets import SAVED
from prunec.passes.base import Aim, PassResult
from prunec.passes.errors import OutOfReachError, UsageError
from prunec.passes.unknown import Unknown
from prunec.runtime.latency import LatencyComparison, Percentiles

DENSE_MS = 10.0
UNITS = 1000


def comparison(speedup: float, error: float = 0.001) -> LatencyComparison:
    dense, compiled = (Percentiles(ms, ms, ms) for ms in (DENSE_MS, DENSE_MS / speedup))
    return LatencyComparison(dense, compiled, speedup, (speedup * (1 - error), speedup * (1 + error)), 200)


def choices(
    goal: TimeGoal, step: int = 1, least: int = 1, in_time: bool = True, what: str = SAVED["latency_ms"]
) -> Callable[[float], SizeChoice]:
    """Chooses the widest network whose predicted time, its share of the units, is within the goal."""

    def choose(tightened: float) -> SizeChoice:
        share = min((1 / goal.speedup if goal.speedup else 1.0), (goal.ms / DENSE_MS if goal.ms else 1.0)) / tightened
        kept = int(UNITS * min(share, 1.0)) // step * step
        if kept < least:
            raise OutOfReachError("It can't be reached.", possible=UNITS * share / least if in_time else None)
        groups = {"groups": [{"name": "g", "kept": kept}]}
        result = PassResult(None, kept < UNITS, groups, aim=Aim(what, 1.0, 1.0))  # type: ignore[arg-type]
        return SizeChoice(result, UNITS / kept, DENSE_MS * kept / UNITS)

    return choose


def machine(true_ms: Callable[[float], float]) -> Callable[[SizeChoice], LatencyComparison]:
    """Measures what a share of the units truly takes."""
    return lambda choice: comparison(DENSE_MS / true_ms(choice.sizes.widths["g"] / UNITS))


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
    assert reached >= 0.95 or choice.sizes.widths["g"] == UNITS
    assert reached >= min(1 - CLOSE_ENOUGH, goal.reached(first.speedup, first.compiled.median))
    assert choice.predicted_ms == timed.tries[timed.chosen].predicted_ms


def test_a_good_model_is_not_corrected() -> None:
    goal = TimeGoal(2.0, None)
    _, timed = close_the_loop(goal, choices(goal), machine(lambda share: 1.01 * DENSE_MS * share))
    assert (len(timed.tries), timed.why_ended, timed.tries[0].tightened) == (1, "", 1.0)


@pytest.mark.parametrize(
    ("goal", "what", "words"),
    [
        (TimeGoal(None, 100.0), SAVED["latency_ms"], "the network keeps everything"),
        (TimeGoal(1.5, None), "parameters removed", "the goal for the parameters removed decides"),
    ],
)
def test_a_goal_that_is_passed_is_not_given_back_where_it_does_not_decide(
    goal: TimeGoal, what: str, words: str
) -> None:
    _, timed = close_the_loop(goal, choices(goal, what=what), machine(lambda share: 0.7 * DENSE_MS * share))
    assert len(timed.tries) == 1 and timed.why_ended == f"the goal in time is met with room to spare, and {words}."
    missed = machine(lambda share: 1.2 * DENSE_MS * share)
    assert len(close_the_loop(TimeGoal(1.5, None), choices(TimeGoal(1.5, None), what=what), missed)[1].tries) > 1


@given(power=st.floats(0.3, 1.4), asked=st.floats(1.3, 2.0))
def test_a_network_that_follows_a_correction_by_a_share_is_met_by_the_slope(power: float, asked: float) -> None:
    """Time is a power of the share: in logarithms the secant through two misses meets the goal."""
    goal = TimeGoal(asked, None)
    real = machine(lambda share: DENSE_MS * share**power)
    _, timed = close_the_loop(goal, choices(goal), real)
    last = timed.tries[-1].measured
    assert isinstance(last, LatencyComparison)
    assert goal.reached(last.speedup, last.compiled.median) == pytest.approx(1, rel=1.5 * CLOSE_ENOUGH)


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
        close_the_loop(
            TimeGoal(2 * UNITS, None), choices(TimeGoal(2 * UNITS, None)), machine(lambda share: DENSE_MS * share)
        )


@pytest.mark.parametrize(("bias", "is_reached"), [(0.8, True), (1.2, False)])
def test_only_a_run_at_the_fastest_widths_shows_that_a_goal_is_out_of_reach(bias: float, is_reached: bool) -> None:
    """The model's most is 5x; the machine's is 6.25x or 4.17x of it, and 5.5x is asked for."""
    goal, least = TimeGoal(5.5, None), UNITS // 5
    run, real = choices(goal, least=least), machine(lambda share: bias * DENSE_MS * share)
    if is_reached:
        choice, timed = close_the_loop(goal, run, real)
        taken = timed.tries[timed.chosen].measured
        assert isinstance(taken, LatencyComparison)
        assert taken.speedup == pytest.approx(5.5, rel=CLOSE_ENOUGH) and choice.sizes.widths["g"] >= least
    else:
        with pytest.raises(OutOfReachError, match=r"4\.17x, 2\.4 ms, were measured at the fastest widths"):
            close_the_loop(goal, run, real)


def test_what_no_measurement_changes_is_refused_before_any() -> None:
    goal = TimeGoal(5.5, None)
    with pytest.raises(OutOfReachError, match="can't be reached"):
        close_the_loop(goal, choices(goal, least=UNITS // 5, in_time=False), machine(lambda _: pytest.fail("measured")))
    with pytest.raises(OutOfReachError, match="can't be reached"):
        close_the_loop(goal, choices(goal, least=UNITS // 5), lambda _: Unknown("ONNX Runtime died."))


def test_nothing_measured_leaves_the_first_choice() -> None:
    goal = TimeGoal(2.0, None)
    choice, timed = close_the_loop(goal, choices(goal), lambda _: Unknown("ONNX Runtime died."))
    assert (choice.sizes.widths, timed.chosen, timed.why_ended) == ({"g": UNITS // 2}, 0, "ONNX Runtime died.")


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
