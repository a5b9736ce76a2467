import math
import subprocess
import sys
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline import parse_pipeline
from prunec.compiler.recovery import parse_schedule
from prunec.compiler.recovery.named_rows import SCRATCH_SCHEDULE, pruning_epoch, with_speedup
from prunec.compiler.recovery.rate_pieces import rest, same_rates
from prunec.compiler.recovery.schedules import OriginalUnknownError, Schedule
from prunec.compiler.stages.request_checks import check_recoveries
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
    assert parse_schedule("halving:0.02", epochs=40).trace(40) == [[0, 0.02], [20, 0.002], [30, 2e-4], [35, 2e-5]]
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
    with pytest.raises(UsageError, match="more than 0 epochs"):
        parse_schedule(text, epochs=0)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, prunec.compiler.recovery; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


# Published schedules: Le and Hua 2021 (restarting), Renda et al. 2020 (rewinding), Wang et al. 2023 (tables 4 and 5).

CIFAR = parse_schedule("step:0=0.1,80=0.01,120=0.001", epochs=160)


def points(text: str, epochs: int | None, original: Schedule | None = None) -> list[list[float]]:
    schedule = parse_schedule(text, epochs=epochs, original=original)
    assert schedule.epochs is not None
    return schedule.trace(schedule.epochs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P30F90,1e-1", [[0, 1e-1], [30, 1e-2], [60, 1e-3], [75, 1e-4], [83, 1e-5]]),
        ("P30F90,1e-2", [[0, 1e-2], [30, 1e-3], [60, 1e-4], [75, 1e-5]]),
        ("P60F60,1e-2", [[0, 1e-2], [30, 1e-3], [45, 1e-4], [53, 1e-5]]),
        ("P60F60,1e-3", [[0, 1e-3], [30, 1e-4], [45, 1e-5]]),
        ("P90F30,1e-2", [[0, 1e-2], [15, 1e-3], [23, 1e-4], [27, 1e-5]]),
        ("P90F30,1e-4", [[0, 1e-4], [15, 1e-5]]),
        ("P60F60,1e-3+180", [[0, 1e-3], [210, 1e-4], [225, 1e-5]]),
        ("P30F90,1e-2+60", [[0, 1e-2], [90, 1e-3], [120, 1e-4], [135, 1e-5]]),
        ("P90F30,1e-4+1485", [[0, 1e-4], [1500, 1e-5]]),
        ("P15F105,1e-1", [[0, 1e-1], [15, 1e-2], [45, 1e-3], [75, 1e-4], [90, 1e-5]]),
        ("P45F75,1e-2", [[0, 1e-2], [15, 1e-3], [45, 1e-4], [60, 1e-5]]),
        ("P75F45,1e-3", [[0, 1e-3], [15, 1e-4], [30, 1e-5]]),
        ("P75F45,1e-3+60", [[0, 1e-3], [75, 1e-4], [90, 1e-5]]),
    ],
)
def test_pruned_at_an_epoch_and_lengthened(text: str, expected: list[list[float]]) -> None:
    assert points(text, None) == expected
    assert pruning_epoch(text) == int(text[1:3])
    assert str(parse_schedule(text)) == text


def test_the_schedule_that_the_first_table_retrains_by() -> None:
    assert points("step:0=1e-2,30=1e-3,60=1e-4,75=1e-5", 90) == points("halving:1e-2", 90)


def test_fine_tuning_keeps_the_last_rate() -> None:
    assert points("ft", 40, CIFAR) == [[0, 0.001]]
    assert points("ft:0.003", 40) == [[0, 0.003]]


def test_rewinding_repeats_the_end_of_the_original() -> None:
    assert points("lrw", 72, CIFAR) == [[0, 0.01], [32, 0.001]]
    assert points("lrw", 100, CIFAR) == [[0, 0.1], [20, 0.01], [60, 0.001]]
    assert points("lrw", 80, CIFAR) == [[0, 0.01], [40, 0.001]]
    assert points("lrw", 160, CIFAR) == CIFAR.trace(160)
    cosine = parse_schedule("cosine:0.1", epochs=12)
    assert points("lrw", 5, cosine) == [[e, cosine.learning_rate(7 + e)] for e in range(5)]


def test_scaled_restarting_warms_up_and_drops_twice() -> None:
    found = dict(points("slr", 72))
    assert found[0] == pytest.approx(0.001)
    assert found[3] == pytest.approx(0.001 + 0.099 * (1 - math.cos(math.pi * 3 / 7.2)) / 2)
    # 64.8 epochs after the warm-up of 7.2: drops after int(32.4) and int(48.6) of them.
    assert [found[e] for e in (8, 39, 40, 55, 56, 71)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    later = dict(points("slr:0.1,0.001,0.33,0.66", 90))
    assert [later[e] for e in (9, 34, 35, 61, 62)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_cyclic_restarting_is_pytorchs_one_cycle() -> None:
    """PyTorch ends the rise one step before the tenth, and the fall at the last step: that far it may differ."""
    from torch import nn, optim

    steps, epochs = 2000, 20
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=steps, pct_start=0.1, div_factor=100, final_div_factor=100
    )
    ours = parse_schedule("clr", epochs=epochs)
    worst = 0.0
    for step in range(steps):
        worst = max(worst, abs(optimizer.param_groups[0]["lr"] - ours.learning_rate(step * epochs / steps)))
        optimizer.step()
        if step < steps - 1:
            theirs.step()
    assert worst < 1e-3
    assert ours.learning_rate(0) == pytest.approx(1e-3)
    assert ours.learning_rate(2) == pytest.approx(0.1)
    assert ours.learning_rate(20) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("text", "epochs", "expected"),
    [
        ("P30F90,1e-2", 60, "of 90 epochs, and the run of 60"),
        ("lrw", 200, "trained for 160"),
        ("lrw:0.1", 10, "takes none"),
        ("slr:0.1,0.01,0.001,0.75,1", 10, "at most 4"),
        ("slr:0.1,0.01,0.8,0.5", 10, "no increasing shares"),
        ("clr:0.1,0.2", 10, "at most 1"),
        ("cosine:0.1+5", 10, "no first stage"),
        ("constant:0.1+10", 10, "the run has 10 in all"),
        ("step:0=0.1,6=0.01+5", 10, "never reaches"),
    ],
)
def test_what_the_derived_schedules_refuse(text: str, epochs: int, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_schedule(text, epochs=epochs, original=CIFAR)


@pytest.mark.parametrize("text", ["ft", "lrw"])
def test_an_unknown_original_is_asked_for(text: str) -> None:
    with pytest.raises(OriginalUnknownError, match="nothing tells that one") as caught:
        parse_schedule(text, epochs=10)
    assert "pretraining" in str(caught.value)


@given(st.integers(0, 200), st.integers(1, 300), st.sampled_from(["1e-1", "1e-2", "0.02", "1e-4"]), st.integers(1, 500))
def test_lengthening_moves_every_later_stage_and_nothing_else(prune: int, tune: int, rate: str, more: int) -> None:
    text = f"P{prune}F{tune},{rate}"
    short, long = parse_schedule(text), parse_schedule(f"{text}+{more}")
    assert (short.epochs, long.epochs) == (tune, tune + more)
    assert long.trace(tune + more) == [[e + more if e else e, r] for e, r in short.trace(tune)]
    assert parse_schedule(str(long), epochs=tune + more) == long


@pytest.mark.parametrize(
    "text", ["P15F105,1e-1", "P30F90,1e-2", "P45F75,1e-2", "P60F60,1e-3", "P75F45,1e-3", "P90F30,1e-4", "P0F120,0.1"]
)
def test_rows_at_the_highest_level_see_the_rates_from_scratch(text: str) -> None:
    start = pruning_epoch(text)
    assert start is not None
    row = parse_schedule(text)
    assert row == parse_schedule(f"rest({start:g}):{SCRATCH_SCHEDULE}", epochs=120 - int(start))
    assert [row.learning_rate(e) for e in range(120 - int(start))] == [
        SCRATCH_SCHEDULE.learning_rate(start + e) for e in range(120 - int(start))
    ]


@pytest.mark.parametrize("text", ["P30F90,1e-2", "P60F60,1e-3", "P90F30,1e-4"])
def test_where_both_rules_agree(text: str) -> None:
    row = parse_schedule(text)
    assert row == parse_schedule(f"halving:{text.partition(',')[2]}", epochs=int(row.epochs or 0))


def test_the_epoch_of_the_pruning_may_be_a_fraction() -> None:
    """30/k of the published table 4: at 12.06 times fewer operations 2.49 epochs."""
    expected = [[0, 1e-1], [30, 1e-2], [60, 1e-3], [75, 1e-4], [83, 1e-5]]
    assert points("P2.49F90,1e-1", None) == points("P30/12.06F90,1e-1", None) == expected
    assert pruning_epoch("P2.49F90,1e-1") == 2.49
    assert pruning_epoch("P30 / 12.06 F90, 1e-1+60") == pytest.approx(2.4876, abs=1e-4)
    assert pruning_epoch("P30/2F105,1e-1") == 15
    assert points("P30/2F105,1e-1", None) == points("P15F105,1e-1", None)
    assert pruning_epoch("cosine:0.1") is None


def test_a_speed_up_takes_the_place_of_its_letter() -> None:
    assert with_speedup("P30/kF90,1e-1", 12.06) == "P30/12.06F90,1e-1"
    assert with_speedup("P30/kF90,1e-1", 1e-7) == "P30/0.0000001F90,1e-1"
    assert with_speedup("rest(30/k):cosine:0.1", 2.0) == "rest(30/2):cosine:0.1"
    assert with_speedup("P30F90,1e-1", 12.06) == "P30F90,1e-1"
    with pytest.raises(UsageError, match="names '30/k' epochs") as caught:
        parse_schedule("P30/kF90,1e-1")
    assert "P30/12.06F90,1e-1" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "epochs", "expected"),
    [
        ("P30F0,1e-1", None, "retrains for 0 epochs"),
        ("P30/0F90,1e-1", None, "names '30/0' epochs"),
        ("P1.2.3F90,1e-1", None, "names '1.2.3' epochs"),
        ("P30F90,fast", None, "learning rate 'fast'"),
        ("rest(x):constant:0.1", 5, "names 'x' epochs"),
        ("rest(-1):constant:0.1", 5, "names '-1' epochs"),
        ("rest(90):P30F90,1e-2", None, "has no rest"),
        ("rest(10):P30F90,1e-2", 90, "is of 90 epochs, and the run of 100"),
        ("rest(5):wr", 10, "Use lrw|leaves out"),
        ("rest(5):cosine:0.1", None, "number of epochs"),
        ("rest(150):lrw", 20, "trained for 160"),
        ("rest(5)", 10, "unknown kind"),
        ("rest(5):cosin:0.1", 10, "unknown kind"),
    ],
)
def test_rests_and_rows_that_are_refused(text: str, epochs: int | None, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_schedule(text, epochs=epochs, original=CIFAR)


ENDED = ["cosine:0.1,0.001", "clr:0.1", "slr", "constant:0.1", "halving:0.1", "step:0=0.1,0.5=0.01", "lrw", "ft"]
hundredths = st.integers(0, 1000).map(lambda n: n / 100)


@given(st.sampled_from(ENDED), hundredths, hundredths, st.integers(1, 30), st.floats(0, 1))
def test_a_rest_is_the_schedule_from_there_on(text: str, a: float, b: float, epochs: int, share: float) -> None:
    total = round(100 * a + 100 * b) / 100
    outer = parse_schedule(f"rest({a}):rest({b}):{text}", epochs=epochs, original=CIFAR)
    both = parse_schedule(f"rest({total}):{text}", epochs=epochs, original=CIFAR)
    assert outer == both
    assert outer.epochs == epochs
    assert parse_schedule(str(outer), epochs=epochs, original=CIFAR) == outer
    inner = parse_schedule(text, epochs=total + epochs, original=CIFAR)
    time = share * epochs
    changes = [piece.end for piece in inner.pieces(total + epochs)]
    if min(abs(total + time - change) for change in changes) > 1e-9:
        assert outer.learning_rate(time) == pytest.approx(inner.learning_rate(total + time), rel=1e-9, abs=1e-12)
    pieces = outer.pieces(epochs)
    assert same_rates(pieces, rest(inner.pieces(total + epochs), total, epochs))
    assert pieces[0].start == 0
    assert pieces[-1].end == epochs
    assert parse_schedule(f"rest(0):{text}", epochs=epochs, original=CIFAR) == parse_schedule(
        text, epochs=epochs, original=CIFAR
    )


def test_a_rest_of_a_schedule_that_knows_its_length() -> None:
    assert points("rest(15):P15F105,1e-1", None) == points("P30F90,1e-2", None)
    assert parse_schedule("rest(15):P15F105,1e-1").epochs == 90
    assert parse_schedule("rest(2.5):P30F90,1e-2").epochs == 87.5
    assert parse_schedule("rest(15):constant:0.1").epochs is None
    longer = points("rest(15):P15F105,1e-1+30", None)
    assert longer == [[0, 0.1], [30, 0.01], [60, 0.001], [90, 1e-4], [105, 1e-5]], "the inner one is lengthened"


def test_runs_of_a_fraction_of_an_epoch() -> None:
    schedule = parse_schedule("cosine:0.1", epochs=0.5)
    assert schedule.learning_rate(0.25) == pytest.approx(0.05)
    assert schedule.trace(0.5, steps_per_epoch=4) == [[0, 0.1], [0.25, schedule.learning_rate(0.25)]]
    assert parse_schedule("constant:0.1", epochs=2.49).pieces(2.49)[-1].end == 2.49


@pytest.mark.parametrize(("row", "trained"), [("P2.49F90,1e-1", 2.49), ("P30/12.06F90,1e-1", 2.49), ("P3F90,1e-1", 3)])
def test_a_checkpoint_of_a_fraction_of_an_epoch_is_checked(row: str, trained: float) -> None:
    pipeline = parse_pipeline(f'prune-filters{{speedup=2.0}} recover{{epochs=90,schedule="{row}"}}')
    check_recoveries(pipeline, Settings(pretraining=parse_schedule("constant:0.1", epochs=trained)), (), ())
    with pytest.raises(UsageError, match=r"trained for 2\.4 epochs"):
        check_recoveries(pipeline, Settings(pretraining=parse_schedule("constant:0.1", epochs=2.4)), (), ())


@pytest.mark.parametrize("schedule", ["ft", "lrw", "rest(1):lrw"])
@pytest.mark.parametrize(
    ("optimizer", "dense", "fits"),
    [
        ("adamw", "sgd", False),
        ("adam", None, False),
        ("sgd", "adam", False),
        ("adam", "adamw", True),
        ("sgd", None, True),
        ("auto", "adam", True),
    ],
)
def test_rates_of_the_dense_training_are_taken_over_where_they_mean_the_same(
    schedule: str, optimizer: str, dense: str | None, fits: bool
) -> None:
    pipeline = parse_pipeline(f'recover{{epochs=3,schedule="{schedule}",optimizer={optimizer}}}')
    settings = Settings(pretraining=parse_schedule("cosine:0.1", epochs=12), pretraining_optimizer=dense)
    with nullcontext() if fits else pytest.raises(UsageError, match="has the dense training's learning rates"):
        check_recoveries(pipeline, settings, (), ())
