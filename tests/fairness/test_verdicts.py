"""Who wins, by pairwise intervals: chance, unknown deviations, ties, pairs of seeds, control arms."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.fairness.accuracy_difference import difference, student_quantile
from prunec.compiler.fairness.run_card import Accuracy, RunCard
from prunec.compiler.fairness.runs_comparison import compare
from prunec.passes.errors import UsageError
from tests.fairness.test_levels import card

# Two-sided quantiles at 95 %, as tables of Student's distribution print them.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize("freedom", STUDENT)
def test_quantiles_are_those_of_the_tables(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(STUDENT[freedom], abs=6e-4)


@given(st.floats(1, 200), st.floats(0.01, 1))
def test_quantiles_fall_with_the_degrees_of_freedom(freedom: float, more: float) -> None:
    assert student_quantile(freedom) > student_quantile(freedom + more) > 1.95


def test_quantiles_of_fractions_agree_with_simulation() -> None:
    """Student's t is a normal variable over the root of a gamma variable of half its degrees of freedom."""
    generator, freedom = np.random.default_rng(0), 2.5
    chi = generator.gamma(freedom / 2, 2, 400_000)
    t = np.abs(generator.normal(size=400_000)) / np.sqrt(chi / freedom)
    assert np.mean(t < student_quantile(freedom)) == pytest.approx(0.95, abs=2e-3)


def of_seeds(*accuracies: float, first: int = 0) -> Accuracy:
    by_seed = dict(enumerate(accuracies, start=first))
    deviation = float(np.std(accuracies, ddof=1))
    return Accuracy(
        mean=sum(accuracies) / len(accuracies), standard_deviation=deviation, runs=len(accuracies), by_seed=by_seed
    )


def test_shared_seeds_are_paired_and_others_are_not() -> None:
    """Seeds that all gain 0.01 from one run to the other: by pairs that is sure, without them it is lost in 0.1."""
    one, other = (0.71, 0.81, 0.912), (0.7, 0.8, 0.9)
    paired = difference(of_seeds(*one), of_seeds(*other))
    welch = difference(of_seeds(*one), of_seeds(*other, first=7))
    assert paired is not None
    assert welch is not None
    gains = np.subtract(one, other)
    assert (paired.kind, paired.winner) == ("paired", 0)
    assert paired.margin == pytest.approx(4.303 * gains.std(ddof=1) / math.sqrt(3), rel=1e-3)
    assert (welch.kind, welch.winner) == ("Welch", None)
    assert welch.margin is not None


def test_welch_by_hand() -> None:
    """Deviations 0.003 and 0.004 of 4 and 5 seeds: 0.00225 + 0.0032 e-3, 6.99 degrees of freedom, t = 2.365."""
    found = difference(
        Accuracy(mean=0.8, standard_deviation=0.003, runs=4), Accuracy(mean=0.79, standard_deviation=0.004, runs=5)
    )
    assert found is not None
    assert found.margin == pytest.approx(2.365 * math.sqrt(0.003**2 / 4 + 0.004**2 / 5), rel=2e-3)


def accurate(name: str, mean: float | None, deviation: float | None = 0.002, **changes: Any) -> RunCard:
    return card(name, accuracy={"mean": mean, "standard_deviation": deviation, "runs": 3}, **changes)


def test_an_unknown_deviation_is_not_zero() -> None:
    found = compare([accurate("a", 0.8, None), accurate("b", 0.7)])
    assert found.ranked
    assert found.verdict == "no winner: how much seeds differ isn't known of a. In points: b 10.00 below a."
    assert found.pairs[0].difference is not None
    assert (found.pairs[0].difference.winner, found.pairs[0].difference.margin) == (None, None)


def test_equal_figures_of_known_deviation_tie() -> None:
    assert compare([accurate("a", 0.8), accurate("b", 0.8)]).verdict.startswith("a = b (=")
    assert compare([accurate("a", 0.8, 0.0), accurate("b", 0.7, 0.0)]).verdict == "a > b"


def test_ties_do_not_chain() -> None:
    """The margin of three seeds with 0.002 is 0.0045: neighbours at 0.003 tie, the ends of three differ."""
    runs = [accurate("x", 0.750), accurate("y", 0.747), accurate("z", 0.744)]
    assert compare(runs).verdict.startswith("x > z; x = y; y = z (=")
    assert compare([*runs[:2], accurate("w", 0.7)]).verdict.startswith("x = y > w (=")
    assert compare([accurate("v", 0.8), *runs[:2]]).verdict.startswith("v > x = y (=")


def test_an_unknown_accuracy_is_not_ranked() -> None:
    assert compare([accurate("a", None), accurate("b", 0.7)]).verdict == "not ranked: the accuracy of a isn't known."


SHORT = {"epochs": 20, "schedule": "constant:1e-3"}


@pytest.mark.parametrize(
    ("accuracies", "deviation", "verdict"),
    [
        ((0.75, 0.73, 0.76, 0.74), 0.001, "l1 wins under both retrainings."),
        ((0.73, 0.75, 0.74, 0.76), 0.001, "random wins under both retrainings."),
        ((0.75, 0.73, 0.74, 0.76), 0.001, "recipe-dependent"),
        ((0.75, 0.73, 0.76, 0.76), 0.001, "recipe-dependent"),
        ((0.75, 0.7501, 0.76, 0.7602), 0.001, "tie under both retrainings."),
        ((0.75, 0.73, 0.76, 0.74), None, "no winner"),
    ],
)
def test_a_method_wins_only_under_both_retrainings(
    accuracies: tuple[float, ...], deviation: float | None, verdict: str
) -> None:
    settings: list[tuple[str, dict[str, Any]]] = [
        ("l1", {}), ("random", {}), ("l1", {"finetuning": SHORT}), ("random", {"finetuning": SHORT}),
    ]  # fmt: skip
    runs = [
        accurate(f"{method}-{index}", mean, deviation, method=method, **changes)
        for index, ((method, changes), mean) in enumerate(zip(settings, accuracies, strict=True))
    ]
    assert compare(runs).verdict.startswith(verdict)


@pytest.mark.parametrize("changes", [{"speedup": 4.0}, {"base": "another"}, {"data": "another"}])
def test_pairs_that_differ_in_more_than_the_retraining_are_not_crossed(changes: dict[str, Any]) -> None:
    """Two ratios, two dense networks or two tasks are no two retrainings."""
    runs = [
        accurate(f"{method}-{index}", mean, method=method, **more)
        for method, mean in (("l1", 0.75), ("random", 0.7))
        for index, more in enumerate(({}, changes))
    ]
    assert compare(runs).verdict.startswith("not ranked.")


def test_the_least_deviations_have_an_interval() -> None:
    found = difference(Accuracy(mean=0.5, standard_deviation=1e-100), Accuracy(mean=0.4, standard_deviation=1e-100))
    assert found is not None
    assert found.winner == 0


def test_control_arms_are_compared_with_their_own_run() -> None:
    arm = accurate("a: random", 0.6, arm_of="a", method="random")
    runs = [accurate("a", 0.8), arm, accurate("b", 0.79)]
    found = compare(runs)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("a", "a: random")]
    assert found.verdict == "a > b"
    assert [row["name"] for row in found.to_json()["cards"]] == ["a", "a: random", "b"]
    assert compare(runs[:2]).verdict == "a > a: random", "with no other run, its arm is one"


def test_drops_are_told_where_nothing_is_ranked() -> None:
    runs = [
        accurate("a", 0.75, dense_accuracy=0.76),
        accurate("b", 0.75, dense_accuracy=0.7731, base="another", finetuning=SHORT),
    ]
    assert compare(runs).verdict == "not ranked. Drops from the dense network, in points: a 1.00, b 2.31."
    assert compare([runs[0], accurate("c", 0.7, data="other")]).verdict == "not ranked."


@pytest.mark.parametrize("tolerance", [-0.1, 1, math.nan])
def test_a_tolerance_is_a_share(tolerance: float) -> None:
    with pytest.raises(UsageError, match="tolerance"):
        compare([card("a"), card("b")], tolerance)
