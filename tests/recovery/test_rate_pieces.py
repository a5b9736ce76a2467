"""Learning rates as exact pieces, against the schedules that they come from."""

import math
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from prunec.compiler.recovery.rate_fields import RatePieces
from prunec.compiler.recovery.rate_pieces import (
    Pieces,
    RatePiece,
    canonical,
    constant,
    cut,
    joined,
    rates_at,
    rest,
    same_rates,
    shifted,
    warmed_up,
    words,
)
from prunec.compiler.recovery.schedule_curves import WarmedUp
from prunec.compiler.recovery.schedules import Schedule, parse_schedule

rates = st.floats(1e-6, 10).map(lambda rate: float(f"{rate:.4g}"))


@st.composite
def step_texts(draw: st.DrawFn, epochs: int) -> str:
    changes = draw(st.sets(st.integers(1, 100 * epochs - 1), max_size=5))
    starts = ["0", *(f"{change / 100}" for change in sorted(changes))]
    return "step:" + ",".join(f"{start}={draw(rates)}" for start in starts)


@st.composite
def texts(draw: st.DrawFn, epochs: int) -> str:
    """Schedules of all kinds that need no other network's."""
    high, low = sorted((draw(rates), draw(rates)), reverse=True)
    first, second = sorted(draw(st.sets(st.integers(5, 95), min_size=2, max_size=2)))
    kinds = [
        f"cosine:{high}",
        f"cosine:{high},{low}",
        f"constant:{low}",
        f"halving:{high}",
        f"slr:{low},{high},0.{first:02d},0.{second:02d}",
        f"clr:{high}",
        f"P10F{epochs},{low}",
        f"constant:{low}",
    ]
    return draw(st.one_of(step_texts(epochs), st.sampled_from(kinds)))


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Schedules of all kinds, rewound ones too."""
    epochs = draw(st.integers(1, 200))
    if draw(st.booleans()):
        return parse_schedule(draw(texts(epochs)), epochs=epochs)
    whole = epochs + draw(st.integers(0, 50))
    return parse_schedule("lrw", epochs=epochs, original=parse_schedule(draw(texts(whole)), epochs=whole))


def length(schedule: Schedule) -> float:
    assert schedule.epochs is not None
    return schedule.epochs


@given(schedules(), st.floats(0, 1), st.floats(0, 0.99), st.integers(1, 500))
def test_pieces_are_what_a_training_reads(schedule: Schedule, share: float, warm: float, steps: int) -> None:
    epochs = length(schedule)
    warmed = WarmedUp("warm", epochs, schedule, warm * epochs) if warm else schedule
    pieces = warmed.pieces(epochs)
    assert pieces == schedule.pieces(epochs, warmup=warm * epochs)
    time = math.floor(share * epochs * steps) / steps
    # A point in time that rounding puts on the other side of a change belongs to neither side.
    if min(abs(time - piece.end) for piece in pieces) > 1e-9:
        expected = warmed.learning_rate(time)
        assert rates_at(pieces, time) == pytest.approx(expected, rel=1e-9, abs=1e-12 * pieces[0].rate(0) + 1e-15)


@given(schedules(), st.floats(0, 0.99))
def test_pieces_cover_the_run_in_canonical_form(schedule: Schedule, warm: float) -> None:
    epochs = length(schedule)
    pieces = schedule.pieces(epochs, warmup=warm * epochs)
    assert pieces[0].start == 0
    assert pieces[-1].end == epochs
    assert all(before.end == after.start for before, after in pairwise(pieces))
    assert canonical(pieces) == pieces
    flat = [a.first != b.first for a, b in pairwise(pieces) if a.shape == b.shape == "constant"]
    assert all(flat)
    assert schedule.pieces(0) == ()


def former_rate(text: str, epochs: int, epoch: float) -> float:
    """Cosines, scaled restarts and one cycle as formulas: their source is `schedule_curves`' docstrings."""
    kind, _, arguments = text.partition(":")
    values = [float(value) for value in arguments.split(",")]

    def half_cosine(start: float, end: float, progress: float) -> float:
        progress = min(max(progress, 0.0), 1.0)
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2

    tenth = epochs / 10
    if kind == "cosine":
        return half_cosine(values[0], values[1], epoch / epochs)
    if kind == "clr":
        if epoch < tenth:
            return half_cosine(values[0] / 100, values[0], epoch / tenth)
        return half_cosine(values[0], values[0] / 10_000, (epoch - tenth) / (epochs - tenth))
    high, low, first, second = values
    if epoch < tenth:
        return half_cosine(low, high, epoch / tenth)
    drops = [int(share * (epochs - tenth)) for share in (first, second)]
    return high / float(10 ** sum(epoch - tenth >= drop for drop in drops))


@given(rates, rates, st.integers(1, 400), st.sampled_from([1, 7, 10, 50, 391]), st.data())
def test_smooth_schedules_give_the_formulas_rates_to_the_last_bit(
    a: float, b: float, epochs: int, steps: int, data: st.DataObject
) -> None:
    high, low = max(a, b), min(a, b)
    time = data.draw(st.integers(0, epochs * steps - 1)) / steps
    for text in (f"cosine:{high},{low}", f"clr:{high}", f"slr:{high},{low},0.5,0.75", f"slr:{high},{low},0.33,0.66"):
        assert parse_schedule(text, epochs=epochs).learning_rate(time) == former_rate(text, epochs, time)


def test_a_drop_that_subtraction_puts_later_than_addition_does() -> None:
    """In floats 28.2 + 126 is 154.2, and 154.2 - 28.2 is less than 126: 126 epochs after the rise haven't passed."""
    assert 28.2 + 126 == 154.2
    assert 154.2 - 28.2 < 126
    schedule = parse_schedule("slr", epochs=282)
    assert schedule.learning_rate(154.2) == 0.1
    assert rates_at(schedule.pieces(282), 154.2) == schedule.learning_rate(154.2)


def pieces_of(text: str, epochs: float, warmup: float = 0.0) -> Pieces:
    return parse_schedule(text, epochs=math.ceil(epochs)).pieces(epochs, warmup)


def test_each_kind_in_pieces() -> None:
    assert pieces_of("step:0=0.1,5=0.1,7=0.01", 10) == (constant(0, 7, 0.1), constant(7, 10, 0.01))
    assert pieces_of("cosine:0.1,0.1", 10) == (constant(0, 10, 0.1),)
    assert pieces_of("cosine:0.1", 10) == (RatePiece(0, 10, "cosine", 0.1, 0),)
    assert pieces_of("clr:0.1", 10) == (
        RatePiece(0, 1, "cosine", 0.001, 0.1), RatePiece(1, 10, "cosine", 0.1, 0.1 / 10_000)
    )  # fmt: skip
    assert pieces_of("slr", 20) == (
        RatePiece(0, 2, "cosine", 0.001, 0.1), constant(2, 11, 0.1), constant(11, 15, 0.01), constant(15, 20, 0.001)
    )  # fmt: skip
    assert pieces_of("constant:0.1", 10, warmup=2) == (RatePiece(0, 2, "linear", 0, 0.1), constant(2, 10, 0.1))
    assert pieces_of("cosine:0.1", 10, warmup=2) == (
        RatePiece(0, 2, "cosine", 0.1, 0, phases=(0, 0.2), factors=(0, 1)),
        RatePiece(2, 10, "cosine", 0.1, 0, phases=(0.2, 1)),
    )
    early_end = parse_schedule("cosine:0.1", epochs=10).pieces(4)
    assert early_end == (RatePiece(0, 4, "cosine", 0.1, 0, phases=(0, 0.4)),)


def test_the_same_rates_give_equal_pieces_however_they_are_written() -> None:
    assert pieces_of("halving:1e-2", 90) == pieces_of("step:0=0.01,30=0.001,45=0.001,60=1e-4,75=1e-5", 90)
    assert pieces_of("constant:0.1", 5) == pieces_of("cosine:0.1,0.1", 5) == pieces_of("step:0=0.1,3.5=0.1", 5)


@given(schedules(), st.fractions(0, 1))
def test_a_training_in_two_parts_has_the_rates_of_the_whole(schedule: Schedule, a: Fraction) -> None:
    whole = schedule.pieces(length(schedule))
    end = whole[-1].end
    middle = float(a) * end
    if 1e-6 < middle < end - 1e-6:
        later = rest(whole, middle, end - middle)
        assert same_rates(joined(cut(whole, 0, middle), later), whole)
        assert same_rates((*cut(whole, 0, middle), *shifted(later, middle)), whole)
        assert later[0].start == 0


@given(schedules(), schedules())
def test_equal_rates_are_an_equivalence(a: Schedule, b: Schedule) -> None:
    first, second = a.pieces(length(a)), b.pieces(length(b))
    assert same_rates(first, first)
    assert same_rates(first, second) == same_rates(second, first)
    halves = tuple(p.part(*ends) for p in first for ends in _halves(p))
    assert same_rates(first, halves)
    assert same_rates(halves, second) == same_rates(first, second)


def _halves(piece: RatePiece) -> list[tuple[float, float]]:
    middle = (piece.start + piece.end) / 2
    return [(piece.start, middle), (middle, piece.end)]


@given(schedules(), st.sampled_from([0.0, 0.01, 0.3, 0.9]), st.data())
def test_a_changed_rate_is_told(schedule: Schedule, warm: float, data: st.DataObject) -> None:
    pieces = list(schedule.pieces(length(schedule), warm * length(schedule)))
    place = data.draw(st.integers(0, len(pieces) - 1))
    piece, change = pieces[place], data.draw(st.floats(1e-8, 1))
    rate = piece.last + change * max(piece.first, piece.last)
    # A curve of which next to nothing is passed near its first rate is hardly one of its last.
    if piece.phases[1] > 0.5 and piece.factors[1] > 0.5:
        first = rate if piece.shape == "constant" else piece.first
        other = [*pieces[:place], replace(piece, first=first, last=rate), *pieces[place + 1 :]]
        assert not same_rates(pieces, other)
        assert not same_rates(other, pieces)


@given(st.integers(2, 100), st.data())
def test_a_change_at_another_time_is_told(epochs: int, data: st.DataObject) -> None:
    pieces = parse_schedule(data.draw(step_texts(epochs)), epochs=epochs).pieces(epochs)
    by = data.draw(st.one_of(st.floats(1.1e-9, 0.009), st.floats(-0.009, -1.1e-9)))
    place = data.draw(st.integers(0, len(pieces) - 1))
    other = [replace(p, end=p.end + by) if n == place else p for n, p in enumerate(pieces)]
    other = [replace(p, start=p.start + by) if n == place + 1 else p for n, p in enumerate(other)]
    assert not same_rates(pieces, other)


def test_decay_early_or_late_in_an_epoch_and_one_epoch_of_a_cycle() -> None:
    early, late = (pieces_of(f"step:0=0.1,{time}=0.001", 2) for time in ("0.1", "0.9"))
    assert not same_rates(early, late)
    assert not same_rates(pieces_of("clr:0.1", 1), pieces_of("constant:0.001", 1))
    assert not same_rates([constant(0, 2.49, 0.1)], [constant(0, 2, 0.1)])
    assert same_rates((), ())
    assert not same_rates((), [constant(0, 1, 0.1)])


def test_pieces_in_words() -> None:
    assert words(pieces_of("step:0=0.1,30=0.01", 40)) == "0.1 from epoch 0, 0.01 from 30"
    assert words(pieces_of("cosine:0.05", 30)) == "cosine 0.05 to 0 over epochs 0 to 30"
    assert words(pieces_of("slr", 20)) == (
        "cosine 0.001 to 0.1 over epochs 0 to 2, 0.1 from epoch 2, 0.01 from 11, 0.001 from 15"
    )
    assert words(pieces_of("cosine:0.1", 10, warmup=2)) == (
        "cosine 0.1 to 0 over epochs 0 to 2 (its part from 0 to 0.2) times 0 to 1, "
        "cosine 0.1 to 0 over epochs 2 to 10 (its part from 0.2 to 1)"
    )
    assert words(()) == "no training"


def test_rates_that_are_warmed_up_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="warmed up again"):
        warmed_up(pieces_of("cosine:0.1", 10, warmup=2), 3)


@given(schedules(), st.floats(0, 0.9))
def test_json_gives_the_same_pieces_back(schedule: Schedule, warm: float) -> None:
    pieces = schedule.pieces(length(schedule), warm * length(schedule))
    adapter = TypeAdapter(RatePieces)
    assert adapter.validate_json(adapter.dump_json(pieces)) == pieces
    assert adapter.validate_python([asdict(piece) for piece in pieces]) == pieces


GOOD = {"start": 0, "end": 30, "shape": "cosine", "first": 0.1, "last": 0.0}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"end": 0}, "start < end"),
        ({"start": -1}, "start < end"),
        ({"end": math.inf}, "finite"),
        ({"first": math.nan}, "finite"),
        ({"first": -0.1}, "rates of 0 or more"),
        ({"factors": [-1, 1]}, "factors of 0 or more"),
        ({"phases": [0.5, 0.2]}, "phases"),
        ({"phases": [0, 1.5]}, "phases"),
        ({"shape": "constant"}, "one rate for a constant"),
        ({"shape": "square"}, "'constant', 'linear' or 'cosine'"),
        ({"start": 1}, "from epoch 0 on, got a piece from 1"),
        ({"lats": 0.1}, "Unexpected"),
    ],
)
def test_what_is_no_piece_is_refused(change: dict[str, object], expected: str) -> None:
    adapter = TypeAdapter(RatePieces)
    assert adapter.validate_python([GOOD])[0].phases == (0, 1)
    with pytest.raises(ValidationError, match=expected):
        adapter.validate_python([GOOD | change])


def test_pieces_with_a_gap_are_refused() -> None:
    with pytest.raises(ValidationError, match="from epoch 30 on, got a piece from 31"):
        TypeAdapter(RatePieces).validate_python([GOOD, GOOD | {"start": 31, "end": 40}])
