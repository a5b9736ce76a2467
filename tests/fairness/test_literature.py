"""Pairs of runs from the literature, each with the level that was worked out by hand from what the papers say."""

from pathlib import Path
from typing import NamedTuple

import pytest

from prunec.compiler.fairness.card_reading import read_cards
from prunec.compiler.fairness.comparison_levels import compare_pair
from prunec.compiler.fairness.run_card import RunCard
from prunec.compiler.fairness.runs_comparison import compare

FILES = ("tests/fairness/literature.yaml", "examples/published/table4.yaml", "examples/published/table5.yaml")


class Known(NamedTuple):
    """A pair, its level and tags, what the missing fields could lift it to, and why."""

    first: str
    second: str
    level: str
    tags: tuple[str, ...]
    at_most: str
    why: str


PAIRS = [
    Known(
        "Rethinking VGG-16-A", "Rethinking VGG-16-A, Scratch-E", "S1", (), "S1",
        "fine-tuned after 160 + 40 epochs against 160 from scratch: neither the rates nor the epochs in all agree",
    ),
    Known(
        "Rethinking VGG-16-A", "Rethinking VGG-16-A, Scratch-B", "S1", (), "S1",
        "the budget of Scratch-B is the dense training's, 243 / 1.52 = 160 dense epochs, and leaves out the 40 / 1.52 "
        "= 26 of fine-tuning; 200 epochs in all against 243",
    ),
    Known(
        "Rethinking VGG-16-A, Scratch-E", "Rethinking VGG-16-A, Scratch-B", "S2", (), "S2",
        "both from chance, 160 epochs against 243",
    ),
    Known("Rethinking ResNet-56-A", "Rethinking ResNet-110-A", "S0", (), "S0", "two networks"),
    Known("Rethinking ResNet-34-A", "Rethinking ResNet-34-B", "S0", (), "S0", "operations less 15.5 % or 24.2 %"),
    Known(
        "Rethinking ResNet-34-B, Scratch-E", "Rethinking ResNet-34-B, Scratch-B", "S2", (), "S2",
        "both from chance, 90 epochs against 118",
    ),
    Known(
        "Rethinking ResNet-34-A", "Li ResNet-34-A", "S1", (), "S1",
        "the same 72.56 %, from dense networks of 73.31 and 73.23 %",
    ),
    Known(
        "Li ResNet-56-B", "Li ResNet-56-B, from scratch", "S1", (), "S4.2",
        "nothing tells how long it was trained from scratch, nor how the dense network was",
    ),
    Known(
        "GReg-1", "GReg-2", "S3.2", (), "S4.2",
        "one dense network and one retraining; the epochs that the two spend on pruning aren't stated",
    ),
    Known(
        "L1-norm of Wang et al.", "GReg-1", "S3.1", (), "S4.2",
        "one dense network, the same epochs and rates; whether batch size and augmentation agree isn't stated",
    ),
    Known("HRank", "GAL-0.5", "S0", (), "S0", "1.78x and 1.76x are 1.1 % apart"),
    Known(
        "ThiNet-50", "DCP", "S1", (), "S1",
        "2.26x and 2.25x of dense networks with 72.88 and 76.01 %: drops alone, 1.87 against 1.06 points",
    ),
    Known("Taylor-FO-BN-72%", "Taylor-FO-BN-56%", "S0", (), "S0", "2.25 and 1.34 GFLOPs are two compressions"),
    Known(
        "Renda fine-tuning", "Renda learning-rate rewinding", "S3.1", ("SX-A", "SX-B"), "S3.1",
        "91 epochs each, at the last rate or at those of the dense training's last 91 epochs",
    ),
    Known(
        "Renda learning-rate rewinding", "Renda weight rewinding", "S3.1", ("SX-A", "SX-B"), "S3.1",
        "the same rates from other weights: rewinding them is part of the retraining",
    ),
    Known(
        "P30F90,1e-1", "P30F90,1e-2", "S3.1", ("SX-A", "SX-B"), "S3.1",
        "pruned at one epoch of one training, 90 epochs each, at rates that differ",
    ),
    Known(
        "P60F60,1e-2", "P90F30,1e-2", "S1", ("SX-A",), "S1",
        "dense networks of epoch 60 and of epoch 90 are two; 120 epochs in all each",
    ),
    Known(
        "P60F60,1e-3", "P60F60,1e-3+180", "S2", (), "S2",
        "60 epochs of retraining against 240",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def cards() -> dict[str, RunCard]:
    """All runs by name; where two tables have one, the latter's."""
    return {card.name: card for file in FILES for card in read_cards(Path(file))}


@pytest.mark.parametrize("known", PAIRS, ids=lambda known: f"{known.first} | {known.second}")
def test_pairs_from_the_literature(cards: dict[str, RunCard], known: Known) -> None:
    pair = compare_pair(cards[known.first], cards[known.second])
    assert (pair.level, pair.tags, pair.at_most) == (known.level, known.tags, known.at_most), known.why


def test_a_wider_tolerance_lets_speedups_agree(cards: dict[str, RunCard]) -> None:
    assert compare_pair(cards["HRank"], cards["GAL-0.5"], tolerance=0.02).level == "S1"
    assert compare([cards["HRank"], cards["GAL-0.5"]], tolerance=0.02).level == "S1"


def test_drops_are_told_from_s1_on(cards: dict[str, RunCard]) -> None:
    found = compare([cards["ThiNet-50"], cards["DCP"]])
    assert found.verdict == "not ranked. Drops from the dense network, in points: ThiNet-50 1.87, DCP 1.06."
    assert "Drops" not in compare([cards["ThiNet-50"], cards["Rethinking VGG-16-A"]]).verdict
