"""What the runs say of the paper's claims: a table of all runs, and a verdict on each claim with its numbers."""

import csv
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from run import Outcome  # type: ignore[import-not-found]


def write_table(outcomes: "Sequence[Outcome]", path: Path) -> None:
    """One line per run, with its curve."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("arm", "seed", "schedule", "top1", "trainability_accuracy", "top1_by_epoch"))
        for o in outcomes:
            curve = " ".join(f"{value:.4f}" for value in o.curve)
            trainability = "" if o.trainability is None else f"{o.trainability:.4f}"
            writer.writerow((o.arm, o.seed, o.schedule, f"{o.accuracy:.4f}", trainability, curve))


def verdicts(outcomes: "Sequence[Outcome]") -> str:
    """The table of means, and each claim with whether it held, as Markdown."""
    return (
        "\n\n".join(
            (_means(outcomes), _larger_or_longer(outcomes), _scratch(outcomes), _gap(outcomes), _ranking(outcomes))
        )
        + "\n"
    )


def accuracies(outcomes: "Sequence[Outcome]", arm: str) -> list[float]:
    """Final top-1 of an arm in points, by seed."""
    found = sorted((o for o in outcomes if o.arm == arm), key=lambda o: o.seed)
    assert found, f"no run is called {arm}"
    return [100 * o.accuracy for o in found]


def _means(outcomes: "Sequence[Outcome]") -> str:
    lines = ["| run | schedule | top-1, % | trainability accuracy, % |", "|---|---|---|---|"]
    for arm in dict.fromkeys(o.arm for o in outcomes):
        runs = [o for o in outcomes if o.arm == arm]
        final = accuracies(outcomes, arm)
        deviation = f" ± {statistics.stdev(final):.2f}" if len(final) > 1 else ""
        trainability = statistics.mean(100 * (o.trainability or 0.0) for o in runs)
        lines.append(f"| {arm} | `{runs[0].schedule}` | {statistics.mean(final):.2f}{deviation} | {trainability:.2f} |")
    return "\n".join(lines)


def _verdict(claim: str, checks: Sequence[tuple[str, float]]) -> str:
    """A claim with the margins, in points, that must all be above 0."""
    held = all(margin > 0 for _, margin in checks)
    lines = [f"**{claim}: {'held' if held else 'did not hold'}.**"]
    lines += [f"- {what}: {margin:+.2f} points" for what, margin in checks]
    return "\n".join(lines)


def _margin(outcomes: "Sequence[Outcome]", better: str, worse: str) -> tuple[str, float]:
    """Mean margin over the seeds."""
    pairs = zip(accuracies(outcomes, better), accuracies(outcomes, worse), strict=True)
    return f"{better} over {worse}", statistics.mean(a - b for a, b in pairs)


def _larger_or_longer(outcomes: "Sequence[Outcome]") -> str:
    pairs = [
        ("P90F30,1e-2 / 10", "P90F30,1e-4 / 10"),
        ("P60F60,1e-2 / 10", "P60F60,1e-3 / 10"),
        ("P30F90,1e-1 / 10", "P30F90,1e-2 / 10"),
        ("P90F30,1e-4+270 / 10", "P90F30,1e-4 / 10"),
        ("P60F60,1e-3+180 / 10", "P60F60,1e-3 / 10"),
    ]
    return _verdict("(b) A larger learning rate, or longer, closes the gap", [_margin(outcomes, *p) for p in pairs])


def _scratch(outcomes: "Sequence[Outcome]") -> str:
    small = ["P90F30,1e-4 / 10", "P60F60,1e-3 / 10"]
    large = ["P30F90,1e-1 / 10"]
    checks = [_margin(outcomes, "scratch", arm) for arm in small]
    checks += [_margin(outcomes, arm, "scratch") for arm in large]
    return _verdict("(c) Training from scratch wins only against small learning rates", checks)


def _gap(outcomes: "Sequence[Outcome]") -> str:
    chains = [
        ["P60F60,1e-3 / 10", "P60F60,1e-3+60 / 10", "P60F60,1e-3+180 / 10"],
        ["P90F30,1e-4 / 10", "P90F30,1e-4+270 / 10"],
    ]
    steps = [(longer, shorter) for chain in chains for shorter, longer in pairwise(chain)]
    return _verdict("(d) The gap to scratch shrinks with epochs", [_margin(outcomes, *step) for step in steps])


def _ranking(outcomes: "Sequence[Outcome]") -> str:
    """Spearman's correlation, by seed, among the networks that share one schedule."""
    arms = ["P60F60,1e-3 / 10", *(o.arm for o in outcomes if "F60,1e-3 / 10" in o.arm and o.arm.startswith("pruned"))]
    correlations = {}
    for seed in sorted({o.seed for o in outcomes}):
        runs = [o for o in outcomes if o.seed == seed and o.arm in arms]
        ranks = [np.argsort(np.argsort([value(o) for o in runs])) for value in (_final, _trainability)]
        correlations[seed] = float(np.corrcoef(*ranks)[0, 1])
    held = min(correlations.values()) >= 0.8
    numbers = ", ".join(f"seed {seed} {value:.2f}" for seed, value in correlations.items())
    return (
        f"**(f) Trainability accuracy ranks networks within one schedule: {'held' if held else 'did not hold'}.**\n"
        f"- rank correlation with the final accuracy among {len(set(arms))} networks: {numbers} (0.8 asked)"
    )


def _final(o: "Outcome") -> float:
    return float(o.accuracy)


def _trainability(o: "Outcome") -> float:
    assert o.trainability is not None
    return float(o.trainability)
