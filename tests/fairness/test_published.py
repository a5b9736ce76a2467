"""The published tables that ship as examples."""

from pathlib import Path

import pytest

from prunec.compiler.fairness.card_reading import read_cards
from prunec.compiler.fairness.comparison_levels import LEVELS, compare_pair
from prunec.compiler.fairness.run_card import Stage
from prunec.compiler.fairness.runs_comparison import compare
from tests.cli.conftest import run

FOLDER = Path("examples/published")
ORDER = ["S0", *LEVELS]


@pytest.mark.parametrize(("number", "runs"), [(1, 18), (3, 11), (4, 12 * 6), (5, 14)])
def test_every_table_is_read_whole(number: int, runs: int) -> None:
    cards = read_cards(FOLDER / f"table{number}.yaml")
    assert len(cards) == runs
    assert len({card.name for card in cards}) == runs


# Figures as printed in Wang, Qin, Bai, Fu, "Why is the State of Neural Network Pruning so Confusing?" (2023).
TABLE1 = """
SFP 1.72 74.61, DCP 2.25 74.95, GAL-0.5 1.76 71.95, Taylor-FO 1.82 74.50, CCP-AC 2.18 75.32, ProvableFP 1.43 75.21,
HRank 1.78 74.98, GReg-1 2.31 75.16, GReg-2 2.31 75.36, CC 2.12 75.59, L1-norm 2.31 75.24, GAL-1 2.59 69.88,
Factorized 2.33 74.55, LFPC 2.55 74.46, GReg-1 2.56 74.85, GReg-2 2.56 74.93, CC 2.68 74.54, L1-norm 2.56 74.77
"""
#: Epochs and changes of the learning rate; None where what is printed is no schedule.
TABLE3 = {
    "SSL": None,
    "L1-norm, ICLR'17": (20, "0.001"),
    "DCP": (60, "0.01 at 36 48 54"),
    "GAL-0.5/1": (30, "0.01 at 10 20"),
    "Taylor-FO": None,
    "Factorized": (90, "0.01 at 30 60"),
    "CCP-AC": (100, "0.001 at 30 60 90"),
    "HRank": None,
    "GReg-1/2": (90, "0.01 at 30 60 75"),
    "ResRep": (180, "0.01 cosine"),
    "L1-norm": (90, "0.01 at 30 60 75"),
}
RATIOS = {10: 1.11, 30: 1.41, 50: 1.93, 70: 3.09, 90: 7.68, 95: 12.06}
#: Top-1 and deviation at these ratios.
TABLE4 = """
scratch        83.68/0.38 83.31/0.13 82.90/0.16 82.45/0.13 79.37/0.76 76.67/0.90
P15F105,1e-1   83.95/0.17 84.01/0.23 83.87/0.44 82.93/0.10 79.86/0.11 77.41/0.11
P30F90,1e-2    83.88/0.07 84.00/0.22 83.29/0.14 82.61/0.07 80.41/0.32 77.64/0.39
P45F75,1e-2    83.56/0.03 83.95/0.14 83.28/0.08 82.47/0.12 79.88/0.10 76.17/0.21
P60F60,1e-3    84.21/0.07 83.87/0.09 82.90/0.10 81.24/0.17 77.29/0.05 70.53/0.37
P75F45,1e-3    84.24/0.04 83.47/0.12 82.45/0.14 80.81/0.09 73.94/0.24 64.98/0.31
P90F30,1e-4    84.09/0.07 82.47/0.02 79.70/0.00 74.87/0.19 49.23/0.21 29.89/0.26
P30F90,1e-1    85.27/0.13 85.37/0.19 85.48/0.18 83.83/0.17 81.56/0.29 79.57/0.15
P60F60,1e-2    83.72/0.14 83.88/0.07 83.67/0.11 82.96/0.23 80.78/0.23 77.81/0.25
P90F30,1e-2    83.91/0.08 84.02/0.20 83.41/0.15 82.91/0.12 79.43/0.07 75.20/0.23
P30/kF90,1e-1  85.45/0.24 85.06/0.24 84.85/0.31 83.64/0.09 79.65/0.31 75.79/0.28
P30/kF90,1e-2  83.40/0.04 82.69/0.27 82.16/0.03 79.97/0.16 74.76/0.24 70.61/0.52
"""
#: Top-1 and deviation, and the mean of the first stage of the drawn curve where there is one, in percent.
TABLE5 = {
    "P30F90,1e-1": (79.57, 0.15, None),
    "P30F90,1e-2": (77.64, 0.39, 67.45),
    "P30F90,1e-2+30": (79.12, 0.19, None),
    "P30F90,1e-2+60": (79.59, 0.25, 72.16),
    "P60F60,1e-2": (77.81, 0.25, None),
    "P60F60,1e-3": (70.53, 0.37, 58.19),
    "P60F60,1e-3+60": (75.71, 0.09, None),
    "P60F60,1e-3+120": (77.17, 0.13, None),
    "P60F60,1e-3+180": (77.33, 0.09, 72.06),
    "P90F30,1e-2": (75.20, 0.23, None),
    "P90F30,1e-4": (29.89, 0.26, 17.93),
    "P90F30,1e-4+60": (60.69, 0.17, None),
    "P90F30,1e-4+270": (70.78, 0.16, None),
    "P90F30,1e-4+1485": (78.18, None, 72.53),
}


def percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 6)


def test_the_first_table_as_printed() -> None:
    printed = [(method, float(k), float(top1)) for method, k, top1 in map(str.split, TABLE1.strip().split(","))]
    cards = read_cards(FOLDER / "table1.yaml")
    found = [(card.method, card.speedup, percent(card.accuracy.mean)) for card in cards]
    assert sorted(found, key=str) == sorted(printed, key=str)


@pytest.mark.parametrize("name", TABLE3)
def test_the_third_table_as_printed(name: str) -> None:
    card = {card.name: card for card in read_cards(FOLDER / "table3.yaml")}[name]
    printed = TABLE3[name]
    if printed is None:
        assert card.finetuning.epochs is None
        assert card.finetuning.learning_rates is None
        return
    epochs, (rate, *changes) = printed[0], printed[1].split()
    text = f"cosine:{rate}" if changes == ["cosine"] else f"step:0={rate}"
    for number, change in enumerate(changes[1:], start=1):
        text += f",{change}={float(rate) / 10**number:g}"
    assert card.finetuning == Stage.model_validate({"epochs": epochs, "schedule": text})


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_fourth_table_as_printed(ratio: int) -> None:
    cards = {card.name: card for card in read_cards(FOLDER / "table4.yaml")}
    for row, *cells in map(str.split, TABLE4.strip().splitlines()):
        card = cards[row if ratio == 95 else f"{row} at {ratio} %"]
        mean, deviation = map(float, cells[list(RATIOS).index(ratio)].split("/"))
        assert card.speedup == RATIOS[ratio]
        assert percent(card.accuracy.mean) == mean
        assert percent(card.accuracy.standard_deviation) == deviation
        if "/k" in row:
            assert card.pretraining.epochs == pytest.approx(30 / RATIOS[ratio], abs=0.005)


@pytest.mark.parametrize("ratio", RATIOS)
def test_rows_have_the_levels_that_the_table_marks_at_every_ratio(ratio: int) -> None:
    scratch, *rows = [card for card in read_cards(FOLDER / "table4.yaml") if card.speedup == RATIOS[ratio]]
    assert len(rows) == 11
    pairs = [compare_pair(row, scratch) for row in rows]
    assert [pair.level for pair in pairs] == ["S4.2"] * 6 + ["S1"] * 5
    assert ["SX-A" in pair.tags for pair in pairs] == [True] * 9 + [False] * 2
    assert all("SX-B" in pair.tags for pair in pairs[9:])


def test_networks_of_different_epochs_of_one_training_are_different_bases() -> None:
    cards = {card.name: card for name in ("table4", "table5") for card in read_cards(FOLDER / f"{name}.yaml")}
    by_base: dict[str | None, set[object]] = {}
    for card in cards.values():
        by_base.setdefault(card.base, set()).add(card.pretraining)
    assert len(by_base) == 1 + 6 + 6, "scratch, six epochs, and 30 / k at six ratios"
    assert all(len(trainings) == 1 for trainings in by_base.values())
    for a, b in (("P30F90,1e-1", "P30/kF90,1e-1"), ("P60F60,1e-3", "P90F30,1e-4")):
        assert compare_pair(cards[a], cards[b]).level == "S1"
    assert compare_pair(cards["P30F90,1e-1"], cards["P30F90,1e-2"]).level == "S3.1"


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


@pytest.mark.parametrize("name", TABLE5)
def test_the_fifth_table_as_printed_and_its_trainability_as_drawn(name: str) -> None:
    card = {card.name: card for card in read_cards(FOLDER / "table5.yaml")}[name]
    found = (card.accuracy.mean, card.accuracy.standard_deviation, card.trainability_accuracy)
    assert tuple(map(percent, found)) == TABLE5[name]


def test_retrainings_of_different_length_are_not_ranked() -> None:
    cards = {card.name: card for card in read_cards(FOLDER / "table5.yaml")}
    pair = compare_pair(cards["P60F60,1e-3"], cards["P60F60,1e-3+180"])
    assert pair.level == "S2"
    assert "SX-A" not in pair.tags
    assert "SX-A" in compare_pair(cards["P60F60,1e-3"], cards["P90F30,1e-4"]).tags


def test_many_runs_stay_readable(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(FOLDER / "table1.yaml")]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) < 80
    assert max(len(line) for line in out.splitlines() if not line.startswith("  what ")) < 110, "reasons are no columns"
    assert "of 153 pairs are at S0 and not listed" in err
    assert "training (both)" in out


def test_nothing_is_cut_off_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["compare", f"{FOLDER / 'table4.yaml'}#scratch", f"{FOLDER / 'table4.yaml'}#P30F90,1e-2"]) == 0
    out = capsys.readouterr().out
    assert "┃" in out, "drawn as on a terminal"
    assert "…" not in out
    assert "what differs: operations in all, in epochs of dense training: 9.95 against 37.46" in out


def test_epochs_are_told_where_rates_are_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = ("{epochs: 60}", "{epochs: 60, schedule: 'slr:0.1', epochs: 60}", "{}", "{epochs: 0}")
    runs = "".join(f"- {{name: r{number}, finetuning: {stage}}}\n" for number, stage in enumerate(stages))
    (tmp_path / "x.yaml").write_text(f"runs:\n{runs}")
    assert run(["compare", str(tmp_path / "x.yaml"), "--markdown"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| r") and "," not in line]
    assert [row.split(" | ")[-1].removesuffix(" |") for row in rows[1:5]] == [
        "60 epochs",
        "60 epochs up to 0.1",
        "-",
        "none",
    ]
