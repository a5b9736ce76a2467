"""The table as a picture, with the learning curves: an HTML page that loads nothing from anywhere."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import jinja2
from outcomes import Outcome  # type: ignore[import-not-found]
from rows import EPOCHS, RATIOS, ROWS, SCRATCH  # type: ignore[import-not-found]

Runs = Mapping[tuple[str, float], Sequence[Outcome]]
#: Accuracies in percent at which a tick may stand.
TICKS = (10, 20, 30, 40, 50, 60, 70, 75, 80, 82, 84, 86, 88, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99)
COLOURS = {"S4.2": "#2563eb", "SX-A": "#c2410c", "SX-B": "#15803d"}
OTHER_COLOUR = "#374151"
#: Pixels between ticks, and between labels, at least.
TICK_GAP, LABEL_GAP = 26, 12
LINE_HEIGHT = 22


@dataclass(frozen=True)
class Scale:
    """Accuracies on a logarithmic axis of the error, on which 80 to 90 % is as far as 90 to 95 %.

    Attributes:
        lowest: Accuracy in percent at the pixel ``start``.
        highest: Accuracy in percent at the pixel ``end``.
    """

    lowest: float
    highest: float
    start: float
    end: float

    def __call__(self, percent: float) -> float:
        """The pixel of an accuracy; of one below the lowest that of the lowest."""
        first, last = math.log(100 - self.lowest), math.log(100 - self.highest)
        share = (math.log(100 - max(percent, self.lowest)) - first) / (last - first)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[int, float]]:
        """Accuracies and their pixels, far enough from each other, from the highest down."""
        kept: list[tuple[int, float]] = []
        for tick in reversed(TICKS):
            place = self(tick)
            if self.lowest <= tick <= self.highest and (not kept or abs(kept[-1][1] - place) >= TICK_GAP):
                kept.append((tick, place))
        return kept


def write_plot(runs: Runs, marks: Mapping[tuple[str, float], str], path: Path) -> None:
    """Write the page.

    Args:
        runs: Runs of all seeds by row and ratio.
        marks: Level of each row and ratio against scratch.
        path: File to write.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("plot.html.jinja").render(
        dots=[_dots(runs, marks, ratio) for ratio in RATIOS],
        curves=[_curves(runs, marks, ratio) for ratio in RATIOS],
        colours=COLOURS,
        other_colour=OTHER_COLOUR,
    )
    path.write_text(page, encoding="utf-8")


def _dots(runs: Runs, marks: Mapping[tuple[str, float], str], ratio: float) -> dict[str, object]:
    """Mean, deviation and every seed of all rows at a ratio, one below the other."""
    found = {row: [100 * outcome.top1 for outcome in runs[row, ratio]] for row in ROWS}
    values = [value for row in found.values() for value in row]
    scale = Scale(min(values) - 1, max(values) + 0.5, 140, 480)
    lines = []
    for number, (row, accuracies) in enumerate(found.items()):
        mean, deviation = fmean(accuracies), stdev(accuracies)
        lines.append(
            {
                "row": row,
                "y": (number + 1) * LINE_HEIGHT,
                "colour": _colour(marks, row, ratio),
                "mean": scale(mean),
                "low": scale(mean - deviation),
                "high": scale(mean + deviation),
                "seeds": [scale(value) for value in accuracies],
                "text": f"{mean:.2f} ± {deviation:.2f}",
            }
        )
    return _panel(runs, ratio) | {"lines": lines, "ticks": scale.ticks, "height": (len(found) + 1) * LINE_HEIGHT}


def _curves(runs: Runs, marks: Mapping[tuple[str, float], str], ratio: float) -> dict[str, object]:
    """Mean accuracy after every epoch, by the epochs since random weights: the dense ones before pruning count."""
    means = {
        row: [100 * fmean(values) for values in zip(*(o.top1_by_epoch for o in runs[row, ratio]), strict=True)]
        for row in ROWS
    }
    lowest = min(curve[-1] for curve in means.values())
    highest = max(value for curve in means.values() for value in curve)
    scale = Scale(min(lowest, 70.0) - 2, highest + 0.5, 330, 10)
    order = sorted(means, key=lambda row: -means[row][-1])
    labels = _spread([scale(means[row][-1]) for row in order])
    lines = []
    for row, label in zip(order, labels, strict=True):
        first = runs[row, ratio][0].arm.pruned_after + 1
        points = [(_epoch_pixel(first + k), scale(value)) for k, value in enumerate(means[row])]
        lines.append(
            {
                "row": row,
                "colour": _colour(marks, row, ratio),
                "points": " ".join(f"{x},{y}" for x, y in points),
                "end": points[-1],
                "label": label,
                "text": f"{means[row][-1]:.2f}",
            }
        )
    epochs = [(epoch, _epoch_pixel(epoch)) for epoch in range(0, EPOCHS + 1, 3)]
    return _panel(runs, ratio) | {"lines": lines, "ticks": scale.ticks, "epochs": epochs}


def _panel(runs: Runs, ratio: float) -> dict[str, object]:
    return {"title": f"ratio {ratio:g}, {runs[SCRATCH, ratio][0].speedup:.2f}x fewer MACs"}


def _colour(marks: Mapping[tuple[str, float], str], row: str, ratio: float) -> str:
    return COLOURS.get(marks.get((row, ratio), ""), OTHER_COLOUR)


def _epoch_pixel(epoch: float) -> float:
    return round(40 + epoch * 400 / EPOCHS, 1)


def _spread(places: Sequence[float]) -> list[float]:
    """Increasing places of labels, moved down as far as it takes that none covers another."""
    kept: list[float] = []
    for place in places:
        kept.append(max(place, kept[-1] + LABEL_GAP) if kept else place)
    return kept
