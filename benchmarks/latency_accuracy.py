"""Accuracy at equal measured time: widths chosen for time against one ratio everywhere, after the same recovery.

The example's network of widths 64, 128 and 256 is compiled for `cpu` at 1.5x and at 2.5x, by the allocation that asks
the cost model, and by one ratio everywhere that the same closed loop tunes to the same measured time. Each is recovered
with five seeds, which are paired: both arms draw the same batches. At 1.5x the mean difference must be at least -0.1
points; at 2.5x it must be above 0, and its 90 % interval (Student's t over the pairs) too.
Some 45 minutes on two cores.

Run from the top folder: python -m benchmarks.latency_accuracy [--epochs 3]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.tables import finish
from prunec.compiler.commands.compile_checkpoint import compile_checkpoint
from prunec.compiler.commands.compile_job import Job
from prunec.compiler.facts.settings import Settings
from prunec.compiler.project.recipe_request import RecipeOptions
from prunec.passes.unknown import Unknown, known
from prunec.runtime.target import Target

CHECKPOINT = Path("examples/fashion_mnist/wide.pt")
SEEDS = 5
#: Two-sided 90 % quantile of Student's t with one degree of freedom less than there are pairs.
STUDENT_T = 2.132
#: Points of top-1 that the mean difference must have at each speed-up, and whether its interval must lie above 0.
REQUIRED = {1.5: (-0.1, False), 2.5: (0.0, True)}


def accuracies(speedup: float, allocation: str, epochs: int, folder: Path) -> tuple[list[float], float]:
    """Top-1 after the recovery with each seed, in percent, and the speed-up that was measured."""
    widths = f"prune-filters{{latency_speedup={speedup}, allocation={allocation}, round_to=16}}"
    recovery = f"recover{{epochs={epochs}, distill=4.0, distill_weight=0.5}}"
    job = Job(
        CHECKPOINT,
        Target.parse("cpu"),
        CHECKPOINT.with_suffix(".toml"),
        recipe=RecipeOptions(pipeline=f"{widths} {recovery}"),
        settings=Settings(seeds=SEEDS),
        output=folder / f"{allocation}-{speedup}.bundle",
    )
    report, _ = compile_checkpoint(job, lambda _: None)
    latency = known(report.latency)
    assert latency is not None
    by_seed = [run.accuracy for run in report.runs]
    assert not any(isinstance(accuracy, Unknown) for accuracy in by_seed)
    return [100 * float(accuracy) for accuracy in by_seed], latency.speedup  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each recovery (default 3)")
    epochs = parser.parse_args().epochs
    rows, missed = list[tuple[str, ...]](), list[str]()
    for speedup, (least, is_above) in REQUIRED.items():
        with tempfile.TemporaryDirectory() as scratch:
            chosen, chosen_speedup = accuracies(speedup, "greedy", epochs, Path(scratch))
            even, even_speedup = accuracies(speedup, "uniform", epochs, Path(scratch))
        differences = [a - b for a, b in zip(chosen, even, strict=True)]
        mean = statistics.mean(differences)
        error = STUDENT_T * statistics.stdev(differences) / len(differences) ** 0.5
        for name, values, measured in (("by time", chosen, chosen_speedup), ("one ratio", even, even_speedup)):
            points = " ".join(f"{value:.2f}" for value in values)
            rows.append((f"{speedup}x", name, f"{measured:.2f}x", points, f"{statistics.mean(values):.2f}", ""))
        rows.append(("", "difference", "", "", f"{mean:+.2f}", f"[{mean - error:+.2f}, {mean + error:+.2f}]"))
        print(*rows[-3:], sep="\n", flush=True)
        if mean < least or (is_above and mean - error <= 0):
            missed.append(f"{speedup}x: {mean:+.2f} points [{mean - error:+.2f}, {mean + error:+.2f}]")
        if abs(chosen_speedup / even_speedup - 1) > 0.03:
            missed.append(f"{speedup}x: {chosen_speedup:.2f}x and {even_speedup:.2f}x are not the same measured time")
    columns = ("asked", "widths", "measured", "top-1 by seed", "mean", "90 %")
    finish(f"Accuracy at equal time, {epochs} epochs of recovery, {SEEDS} seeds", columns, rows, missed)


if __name__ == "__main__":
    main()
