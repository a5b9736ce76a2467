"""Table 4 of the finished runs, as Markdown and CSV, with its plot and what it says of the paper's claims."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from claims import verdicts  # type: ignore[import-not-found]
from levels import Levels, levels  # type: ignore[import-not-found]
from noise import difference  # type: ignore[import-not-found]
from outcomes import Outcome  # type: ignore[import-not-found]
from plot import write_plot  # type: ignore[import-not-found]
from published import published_percent  # type: ignore[import-not-found]
from rows import DENSE_ROW, RATIOS, ROWS, SCRATCH, position  # type: ignore[import-not-found]

#: A row at a ratio.
Name = tuple[str, float]
#: The runs of all seeds.
Runs = Mapping[Name, Sequence[Outcome]]
COLUMNS = (
    *("row", "ratio", "speedup", "pruned_after", "epochs", "mark", "level", "tags"),
    *("top1_percent", "standard_deviation", "trainability_percent"),
    *("above_scratch_points", "margin_points", "standing"),
)
#: How a difference to scratch is shown.
STANDING = {"above": "**{}** ▲", "below": "{} ▼", "within noise": "{}"}
HEADING = """\
Test accuracy in percent, mean and deviation over {seeds} seeds; points over scratch with their 95 % interval (Student's
t, paired by seed), ▲ above and ▼ below by more than the seeds explain. Dense: {dense}.
"""
EXTENDED_HEADING = "Retrained for longer, or pruned otherwise:\n"


def write_report(outcomes: Sequence[Outcome], folder: Path) -> str:
    """Write table.md, table.csv, claims.md and plot.html; returns the table and the claims.

    Raises:
        SystemExit: Some runs of the table are missing.
    """
    runs = by_name(outcomes)
    compared = {
        (row, ratio): levels(found, runs[SCRATCH, ratio])
        for (row, ratio), found in runs.items()
        if row not in (DENSE_ROW, SCRATCH)
    }
    table, claimed = _markdown(runs, compared), verdicts(runs)
    (folder / "table.md").write_text(table)
    (folder / "claims.md").write_text(claimed)
    _write_csv(runs, compared, folder / "table.csv")
    write_plot(runs, {name: found.mark for name, found in compared.items()}, folder / "plot.html")
    return f"{table}\n{claimed}"


def by_name(outcomes: Sequence[Outcome]) -> Runs:
    """The runs by row and ratio, in the table's order, each with all seeds in order.

    Raises:
        SystemExit: Some runs of the table are missing, or there are fewer than two seeds.
    """
    seeds = sorted({outcome.seed for outcome in outcomes})
    if len(seeds) < 2:
        raise SystemExit(f"The deviation over seeds takes two seeds at least, and there are {len(seeds)}.")
    held = {outcome.key: outcome for outcome in outcomes}
    names = {(outcome.arm.row, outcome.arm.ratio) for outcome in outcomes}
    names |= {(DENSE_ROW, 0.0), *((row, ratio) for row in ROWS for ratio in RATIOS)}
    missing = [
        f"{row} at {ratio:g}, seed {seed}" for row, ratio in names for seed in seeds if (row, ratio, seed) not in held
    ]
    if missing:
        raise SystemExit(f"{len(missing)} runs are missing, such as {min(missing)}: run again without --tables-only.")
    ordered = sorted(names, key=lambda name: (position(name[0]), name[1]))
    return {(row, ratio): [held[row, ratio, seed] for seed in seeds] for row, ratio in ordered}


def _markdown(runs: Runs, compared: Mapping[Name, Levels]) -> str:
    """The twelve rows, and below them what else was run."""
    dense = runs[DENSE_ROW, 0.0]
    text = HEADING.format(seeds=len(dense), dense=_percent(dense)) + "\n" + _table(runs, compared, ROWS)
    if others := [row for row in dict.fromkeys(row for row, _ in runs) if row not in (DENSE_ROW, *ROWS)]:
        text += "\n" + EXTENDED_HEADING + "\n" + _table(runs, compared, others)
    return text


def _table(runs: Runs, compared: Mapping[Name, Levels], rows: Sequence[str]) -> str:
    ratios = [ratio for ratio in RATIOS if any((row, ratio) in runs for row in rows)]
    theirs = published_percent()
    head = [
        title
        for ratio in ratios
        for title in (f"ratio {ratio:g}, {runs[SCRATCH, ratio][0].speedup:.2f}x", "over scratch", "in the paper")
    ]
    lines = [("row", "level", *head), ("---",) * (2 + len(head))]
    for row in rows:
        marks = dict.fromkeys(compared[row, ratio].mark for ratio in ratios if row != SCRATCH)
        cells = [cell for ratio in ratios for cell in _cells(runs, theirs, row, ratio)]
        lines.append((row, " / ".join(marks), *cells))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(runs: Runs, theirs: Mapping[Name, float], row: str, ratio: float) -> tuple[str, str, str]:
    """Accuracy, what it is above scratch, and what the paper's is above the paper's."""
    accuracy = _percent(runs[row, ratio])
    if row == SCRATCH:
        return accuracy, "", ""
    gap = difference(runs[row, ratio], runs[SCRATCH, ratio])
    paper = f"{theirs[row, ratio] - theirs[SCRATCH, ratio]:+.2f}" if (row, ratio) in theirs else ""
    return accuracy, STANDING[gap.standing].format(gap), paper


def _percent(runs: Sequence[Outcome]) -> str:
    accuracies = [100 * outcome.top1 for outcome in runs]
    return f"{fmean(accuracies):.2f} ± {stdev(accuracies):.2f}"


def _write_csv(runs: Runs, compared: Mapping[Name, Levels], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, found in runs.items():
            arm, accuracies = found[0].arm, [100 * outcome.top1 for outcome in found]
            line: dict[str, object] = {
                "row": arm.row,
                "ratio": f"{arm.ratio:g}",
                "speedup": f"{found[0].speedup:.4g}",
                "pruned_after": arm.pruned_after,
                "epochs": arm.epochs,
                "top1_percent": f"{fmean(accuracies):.2f}",
                "standard_deviation": f"{stdev(accuracies):.2f}",
                "trainability_percent": f"{100 * fmean(outcome.trainability_accuracy for outcome in found):.2f}",
            }
            if name in compared:
                level, gap = compared[name], difference(found, runs[SCRATCH, arm.ratio])
                line |= {"mark": level.mark, "level": level.level, "tags": " ".join(level.tags)}
                line |= {"above_scratch_points": f"{gap.points:.2f}", "margin_points": f"{gap.margin:.2f}"}
                line |= {"standing": gap.standing}
            writer.writerow(line)
