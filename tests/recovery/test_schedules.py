import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.recovery import parse_schedule
from prunec.passes.errors import UsageError


def starts(text: str, epochs: int) -> list[float]:
    return [start for start, _ in parse_schedule(text, epochs=epochs).trace(epochs)]


@pytest.mark.parametrize(
    ("epochs", "rate", "expected"),
    [
        (90, "1e-1", [0, 30, 60, 75, 83]),
        (90, "1e-2", [0, 30, 60, 75]),
        (60, "1e-2", [0, 30, 45, 53]),
        (60, "1e-3", [0, 30, 45]),
        (30, "1e-2", [0, 15, 23, 27]),
        (30, "1e-4", [0, 15]),
        (120, "1e-1", [0, 30, 60, 90, 105]),
    ],
)
def test_halving_reproduces_the_published_schedules(epochs: int, rate: str, expected: list[int]) -> None:
    schedule = parse_schedule(f"halving:{rate}", epochs=epochs)
    assert starts(str(schedule), epochs) == expected
    rates = [value for _, value in schedule.trace(epochs)]
    assert rates == [float(f"1e{int(math.log10(float(rate))) - i}") for i in range(len(expected))]
    assert rates[-1] == 1e-5
    assert schedule.first_stage_epochs == expected[1]


def test_halving_of_other_rates_stops_above_the_last_rate() -> None:
    assert parse_schedule("halving:0.02", epochs=40).trace(40) == [
        [0, 0.02],
        [20, 0.002],
        [30, 2e-4],
        [35, 2e-5],
    ]
    assert parse_schedule("halving:1e-5", epochs=7).trace(7) == [[0, 1e-5]]


def test_halving_of_a_run_too_short_for_all_stages() -> None:
    assert parse_schedule("halving:0.1", epochs=1).trace(1) == [[0, 0.1]]
    assert parse_schedule("halving:0.1", epochs=2).trace(2) == [[0, 0.1], [1, 0.01]]


def test_step_changes_at_the_named_epochs() -> None:
    schedule = parse_schedule("step: 0=1e-2, 30=1e-3, 60.5=1e-4", epochs=90)
    assert [schedule.learning_rate(e) for e in (0, 29.999, 30, 60, 60.49, 60.5, 89)] == [
        1e-2, 1e-2, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4,
    ]  # fmt: skip
    assert schedule.trace(90, steps_per_epoch=10) == [[0, 1e-2], [30, 1e-3], [60.5, 1e-4]]
    assert schedule.trace(40) == [[0, 1e-2], [30, 1e-3]]
    assert schedule.first_stage_epochs == 30


def test_cosine_falls_from_its_peak_to_its_minimum() -> None:
    schedule = parse_schedule("cosine:0.02,0.001", epochs=10)
    assert schedule.learning_rate(0) == 0.02
    assert schedule.learning_rate(5) == pytest.approx(0.0105)
    assert schedule.learning_rate(10) == 0.001
    assert parse_schedule("cosine:0.02", epochs=10).learning_rate(10) == 0
    assert schedule.first_stage_epochs is None
    assert len(schedule.trace(10)) == 10
    trace = schedule.trace(10, steps_per_epoch=4)
    assert len(trace) == 40
    assert trace[1] == [0.25, schedule.learning_rate(0.25)]
    rates = [rate for _, rate in trace]
    assert rates == sorted(rates, reverse=True)


def test_constant_is_one_stage() -> None:
    schedule = parse_schedule("constant:1e-3", epochs=12)
    assert schedule.trace(12, steps_per_epoch=100) == [[0, 1e-3]]
    assert schedule.learning_rate(11.9) == 1e-3
    assert schedule.first_stage_epochs == 12
    assert parse_schedule("constant:1e-3").first_stage_epochs is None


def test_a_first_stage_shorter_than_an_epoch_is_none() -> None:
    assert parse_schedule("step:0=1e-3,0.5=1e-2", epochs=4).first_stage_epochs is None
    assert parse_schedule("step:0=1e-3,10.5=1e-2", epochs=12).first_stage_epochs == 10


rates = st.floats(1e-8, 10, allow_nan=False)


@given(rates, rates, st.integers(2, 200))
def test_texts_round_trip(high: float, low: float, epochs: int) -> None:
    texts = [
        f"step:0={high},{epochs - 1}={low}",
        f"cosine:{max(high, low)},{min(high, low)}",
        f"cosine:{high}",
        f"constant:{low}",
        f"halving:{high}",
    ]
    for text in texts:
        schedule = parse_schedule(text, epochs=epochs)
        assert str(schedule) == text
        assert parse_schedule(str(schedule), epochs=epochs) == schedule
        assert all(schedule.learning_rate(e / 7) >= 0 for e in range(7 * epochs))


def test_equal_schedules_are_equal_however_they_are_written() -> None:
    assert parse_schedule("step:0=1e-2,5=1e-3") == parse_schedule("step:0=0.01,5=0.001")
    assert parse_schedule("halving:1e-3", epochs=60) == parse_schedule("step:0=1e-3,30=1e-4,45=1e-5", epochs=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cosin:0.1", "Did you mean 'cosine'"),
        ("0.1", "unknown kind"),
        ("cosine", "has no learning rate"),
        ("cosine:", "has no learning rate"),
        ("cosine:fast", "learning rate 'fast'"),
        ("cosine:-0.1", "learning rate '-0.1'"),
        ("cosine:inf", "learning rate 'inf'"),
        ("constant:nan", "learning rate 'nan'"),
        ("constant:0", "must be above 0"),
        ("halving:0", "must be above 0"),
        ("cosine:0.1,0.2", "minimum above"),
        ("cosine:0.1,0.01,0.001", "too many values"),
        ("step:1=0.1", "starts at epoch 1"),
        ("step:0=0.1,5=0.01,5=0.001", "don't increase"),
        ("step:0=0.1,0.01", "expected EPOCH=LEARNING_RATE"),
        ("step:0=0.1,20=0.01", "run of 20 epochs never reaches"),
    ],
)
def test_texts_that_are_no_schedule_are_refused(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_schedule(text, epochs=20)


@pytest.mark.parametrize("text", ["cosine:0.1", "halving:0.1"])
def test_schedules_that_depend_on_the_length_ask_for_it(text: str) -> None:
    with pytest.raises(UsageError, match="number of epochs"):
        parse_schedule(text)
    with pytest.raises(UsageError, match="at least 1 epoch"):
        parse_schedule(text, epochs=0)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, prunec.compiler.recovery; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
