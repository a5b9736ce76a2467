"""Runs that are compressed alike: by their operations, or by their measured time on one target."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.fairness.amounts import Equal
from prunec.compiler.fairness.comparison_levels import compare_pair
from prunec.compiler.fairness.report_cards import report_card, seed_card
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.fairness.runs_comparison import compare
from prunec.compiler.report.training_parts import RunPart
from prunec.passes.errors import UsageError
from prunec.passes.unknown import Unknown
from tests.compiler.sample_report import sample_report
from tests.fairness.test_levels import card

TIME = {"median_ms": 4.0, "target": "cpu-dense-fp32", "hardware": "one CPU", "batch": 1, "threads": 2}


def timed(name: str = "a", time: dict[str, Any] = TIME, **changes: Any) -> RunCard:
    return card(name, latency=TIME | time, **changes)


def test_equal_time_counts_in_place_of_operations_where_it_is_asked_for() -> None:
    a, b = timed("a", speedup=2.0), timed("b", {"median_ms": 4.1}, speedup=3.0)
    assert compare_pair(a, b).level == "S0"
    assert compare_pair(a, b, equal="latency").level == "S4.2"
    slower = timed("b", {"median_ms": 4.2}, speedup=2.0)
    assert compare_pair(a, slower).level == "S4.2"
    apart = compare_pair(a, slower, equal="latency")
    assert (apart.level, apart.differs) == ("S0", ("latency in ms: 4 against 4.2",))
    assert compare_pair(a, slower, 0.06, "latency").level == "S4.2"


@pytest.mark.parametrize(
    ("name", "value"), [("target", "cpu-dense-int8"), ("hardware", "another CPU"), ("batch", 8), ("threads", 1)]
)
def test_times_under_other_conditions_are_not_comparable(name: str, value: Any) -> None:
    pair = compare_pair(timed(), timed("b", {name: value}), equal="latency")
    assert (pair.level, pair.at_most) == ("S0", "S0")
    (told,) = pair.differs
    assert f"latency.{name}: " in told and "can't be compared" in told
    assert compare_pair(timed(), timed("b", {name: value})).level == "S4.2"


@pytest.mark.parametrize("name", ["target", "hardware", "batch", "threads"])
def test_what_is_not_known_of_a_time_is_not_taken_as_equal(name: str) -> None:
    pair = compare_pair(timed(), timed("b", {name: None}), equal="latency")
    assert (pair.level, pair.at_most, pair.missing) == ("S0", "S4.2", (f"b: latency.{name}",))


def test_a_run_without_a_time_is_not_known_to_be_compressed_alike() -> None:
    pair = compare_pair(timed(), card("b"), equal="latency")
    assert (pair.level, pair.at_most, pair.missing) == ("S0", "S4.2", ("b: latency",))


@given(a=st.floats(1e-3, 1e3), b=st.floats(1e-3, 1e3), share=st.floats(0, 0.99))
def test_the_tolerance_is_a_share_of_the_longer_time(a: float, b: float, share: float) -> None:
    one, other = timed("a", {"median_ms": a}), timed("b", {"median_ms": b})
    alike = compare_pair(one, other, share, "latency").predicates["p0"].truth
    assert alike is compare_pair(other, one, share, "latency").predicates["p0"].truth
    if abs(a - b) > 1.0001 * share * max(a, b) + 1e-9:
        assert alike is False
    elif abs(a - b) < 0.9999 * share * max(a, b):
        assert alike is True


@pytest.mark.parametrize(("equal", "words"), [("macs", "speed-up in MACs, to 1 %"), ("latency", "target, to 3 %")])
def test_a_comparison_says_what_is_equal(equal: Equal, words: str) -> None:
    found = compare([timed(), timed("b")], equal=equal)
    assert found.alike.endswith(words)
    assert (found.to_json()["equal"], found.to_json()["tolerance"]) == (equal, {"macs": 0.01, "latency": 0.03}[equal])


def test_another_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="macs or latency"):
        compare([timed(), timed("b")], equal="size")  # type: ignore[arg-type]


def test_the_card_of_a_report_has_its_time_on_the_target() -> None:
    report = sample_report()
    measured = report.latency if not isinstance(report.latency, Unknown) else report.latency_cpu
    assert not isinstance(measured, Unknown)
    on_cpu = report.model_copy(update={"target": "cpu-dense-fp32", "latency": measured})
    latency = report_card(on_cpu, "a").latency
    assert latency is not None
    assert (latency.median_ms, latency.threads) == (measured.compiled_ms.median, measured.threads)
    assert latency.hardware == on_cpu.environment.processor
    elsewhere = on_cpu.model_copy(update={"latency": Unknown("the device isn't here."), "latency_cpu": measured})
    assert report_card(elsewhere, "a").latency is None, "the time on another CPU is none of the target's"
    another = RunPart.model_validate(on_cpu.runs[0].model_dump() | {"seed": 99})
    assert seed_card(on_cpu, "a: seed 99", another).latency is None, "the network of another seed was not timed"
