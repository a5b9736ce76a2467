"""The published tables that ship as examples."""

from pathlib import Path

import pytest

from prunec.compiler.fairness.card_reading import read_cards
from prunec.compiler.fairness.comparison_levels import LEVELS, compare_pair
from prunec.compiler.fairness.runs_comparison import compare
from tests.cli.conftest import run

FOLDER = Path("examples/published")
ORDER = ["S0", *LEVELS]


@pytest.mark.parametrize(("number", "runs"), [(1, 18), (3, 8), (4, 12), (5, 6)])
def test_every_table_is_read(number: int, runs: int) -> None:
    cards = read_cards(FOLDER / f"table{number}.yaml")
    assert len(cards) == runs
    assert len({card.name for card in cards}) == runs


def test_published_results_are_not_comparable_enough_to_rank() -> None:
    cards = read_cards(FOLDER / "table1.yaml")
    pairs = [(a, b) for i, a in enumerate(cards) for b in cards[i + 1 :]]
    assert all(ORDER.index(compare_pair(a, b).level) < ORDER.index("S3.2") for a, b in pairs)
    by_name = {card.name: card for card in cards}
    same = compare_pair(by_name["L1-norm"], by_name["GReg-1"])
    assert same.level == "S3.1", "one base, one length, one schedule; the other settings aren't told"
    assert same.at_most == "S4.2"
    assert compare_pair(by_name["L1-norm"], by_name["DCP"]).level == "S0"
    assert compare([by_name["L1-norm"], by_name["GReg-1"]]).verdict == "not ranked."


def test_speedups_of_the_third_table_are_not_told() -> None:
    assert all(card.speedup is None for card in read_cards(FOLDER / "table3.yaml"))


#: Means of the first stage of the drawn curves, and their last points, in percent.
TABLE5 = {
    "P60F60,1e-3": (58.19, 70.40),
    "P60F60,1e-3+180": (72.06, 77.24),
    "P30F90,1e-2": (67.45, 78.08),
    "P30F90,1e-2+60": (72.16, 79.80),
    "P90F30,1e-4": (17.93, 30.10),
    "P90F30,1e-4+1485": (72.53, 78.18),
}


def test_trainability_of_the_fifth_table_is_what_the_curves_show() -> None:
    for card in read_cards(FOLDER / "table5.yaml"):
        trainability, final = TABLE5[card.name]
        assert card.trainability_accuracy == pytest.approx(trainability / 100, abs=5e-5)
        assert card.accuracy.mean == pytest.approx(final / 100, abs=5e-5)


def test_retrainings_of_different_length_are_not_ranked() -> None:
    cards = {card.name: card for card in read_cards(FOLDER / "table5.yaml")}
    pair = compare_pair(cards["P60F60,1e-3"], cards["P60F60,1e-3+180"])
    assert pair.level == "S2"
    assert "SX-A" not in pair.tags
    assert "SX-A" in compare_pair(cards["P60F60,1e-3"], cards["P90F30,1e-4"]).tags


def test_many_runs_stay_readable(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(FOLDER / "table1.yaml")]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) < 40
    assert "of 153 pairs are at S0 and not listed" in err
    assert "training (both)" in out
