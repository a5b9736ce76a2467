"""The paper's own table 4, from the run cards of its rows."""

from pathlib import Path

from rows import RATIOS, ROWS  # type: ignore[import-not-found]

from prunec.compiler.fairness import read_cards

TABLE = Path(__file__).resolve().parents[1] / "published" / "table4.yaml"


def published_percent() -> dict[tuple[str, float], float]:
    """Top-1 of ResNet-34 on ImageNet100 in percent, by row and ratio."""
    means = {card.name: card.accuracy.mean for card in read_cards(TABLE)}
    found = {(row, ratio): means[f"{row} at {100 * ratio:.0f} %"] for row in ROWS for ratio in RATIOS}
    return {name: 100 * mean for name, mean in found.items() if mean is not None}
