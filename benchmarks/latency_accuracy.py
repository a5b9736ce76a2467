"""Accuracy at equal measured time: widths chosen for time against one ratio everywhere, after the same recovery.

The example's network of widths 64, 128 and 256 is compiled for `cpu` at 1.5x and at 2.5x, by the allocation that asks
the cost model, and by one ratio everywhere that the same closed loop tunes to the same measured time. Each is recovered
with five seeds, which are paired: both arms draw the same batches. At 1.5x the mean difference must be at least -0.1
points; at 2.5x it must be above 0, and its 90 % interval (Student's t over the pairs) too. The two networks are timed
in turns in the end: their times must be within 3 %.
Some 45 minutes on two cores.

Then a ResNet of 20 layers, trained here on the example's 10,000 images, is compiled at 3x with whole branches as a
choice (`depth=true`) and without: with them it must end at least as well, in the mean of the pairs.

Run from the top folder: python -m benchmarks.latency_accuracy [--epochs 3] [--only 1.5 2.5 depth]
"""

import argparse
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import finish
from examples.fashion_mnist.model import ResNet
from prunec.compiler.commands.compile_checkpoint import compile_checkpoint
from prunec.compiler.commands.compile_job import Job
from prunec.compiler.facts.settings import Settings
from prunec.compiler.project.recipe_request import RecipeOptions
from prunec.passes.program import Program
from prunec.passes.unknown import known
from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession
from prunec.runtime.latency import compare_latency, wall_clock
from prunec.runtime.numerics import random_inputs
from prunec.runtime.target import Target

EXAMPLE = Path("examples/fashion_mnist")
SEEDS = 5
#: Two-sided 90 % quantile of Student's t with one degree of freedom less than there are pairs.
STUDENT_T = 2.132
#: Points of top-1 that the mean difference must have at least, and whether its interval must lie above 0.
REQUIRED = {"1.5": (-0.1, False), "2.5": (0.0, True), "depth": (0.0, False)}
_DEPTH_SPEEDUP, _DENSE_EPOCHS = 3.0, 8
#: Measurements of each network where two pruned ones are held against each other.
_RUNS = 300
_DEEP = "from model import ResNet\n\n\ndef deep():\n    return ResNet((32, 64, 128), blocks=3)\n"


@dataclass(frozen=True)
class Arm:
    """One way of choosing sizes: what it is called, and the options of prune-filters."""

    name: str
    options: str


@dataclass(frozen=True)
class Result:
    """Top-1 in percent after the recovery with each seed, and the speed-up that was measured."""

    accuracies: tuple[float, ...]
    speedup: float


def run(checkpoint: Path, arm: Arm, epochs: int, folder: Path) -> Result:
    """Prune a checkpoint by an arm, and recover it with every seed."""
    pipeline = (
        f"prune-filters{{{arm.options}, round_to=16}} recover{{epochs={epochs}, distill=4.0, distill_weight=0.5}}"
    )
    job = Job(
        checkpoint,
        Target.parse("cpu"),
        checkpoint.with_suffix(".toml"),
        recipe=RecipeOptions(pipeline=pipeline),
        settings=Settings(seeds=SEEDS),
        output=folder / f"{arm.name}.bundle",
        force=True,
    )
    report, _ = compile_checkpoint(job, lambda _: None)
    latency = known(report.latency)
    assert latency is not None
    by_seed = [known(each.accuracy) for each in report.runs]
    return Result(tuple(100 * accuracy for accuracy in by_seed if accuracy is not None), latency.speedup)


def deep_checkpoint(folder: Path) -> Path:
    """A ResNet of 20 layers with widths 32, 64 and 128, trained on the example's images."""
    shutil.copy(EXAMPLE / "model.py", folder)
    (folder / "deep.py").write_text(_DEEP)
    text = (EXAMPLE / "wide.toml").read_text().replace("model:wide_resnet", "deep:deep")
    data = (EXAMPLE / "fashion_mnist.npz").absolute()
    text = text.replace("npz:fashion_mnist.npz", f"npz:{data}").replace("epochs = 6, ", f"epochs = {_DENSE_EPOCHS}, ")
    (folder / "deep.toml").write_text(text)
    torch.manual_seed(0)
    network = ResNet((32, 64, 128), blocks=3)
    with np.load(data) as stored:
        images = torch.from_numpy((stored["train_images"][:, None] / 255 - 0.2860) / 0.3530).float()
        labels = torch.from_numpy(stored["train_labels"]).long()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = len(images) // 100
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _DENSE_EPOCHS * steps)
    for _ in range(_DENSE_EPOCHS):
        for index in torch.randperm(len(images)).split(100)[:steps]:
            loss = torch.nn.functional.cross_entropy(network(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.save(network.state_dict(), folder / "deep.pt")
    return folder / "deep.pt"


@dataclass(frozen=True)
class Ratio:
    """Milliseconds of the second of two networks over those of the first, with its 95 % interval."""

    speedup: float
    interval: tuple[float, float]

    @property
    def words(self) -> str:
        return f"{self.speedup:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"


def beside_each_other(first: Path, second: Path) -> Ratio:
    """The networks of two bundles, timed in turns: what each measured beside the dense one was at other moments."""
    inputs = random_inputs(Program.load(first / "model.pt2"), 1, 0)
    timers = (wall_clock(partial(OnnxRuntimeSession(each / "model.onnx"), *inputs)) for each in (second, first))
    timed = compare_latency(*timers, runs=_RUNS)
    return Ratio(timed.speedup, timed.speedup_interval)


def arms(case: str) -> tuple[Arm, Arm]:
    """The two arms of a case: the one that is to be better first."""
    if case == "depth":
        goal = f"latency_speedup={_DEPTH_SPEEDUP}, allocation=balanced"
        return Arm("with depth", f"{goal}, depth=true"), Arm("widths alone", goal)
    goal = f"latency_speedup={case}"
    return Arm("by time", f"{goal}, allocation=balanced"), Arm("one ratio", f"{goal}, allocation=uniform")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each recovery (default 3)")
    parser.add_argument("--only", nargs="+", choices=tuple(REQUIRED), default=tuple(REQUIRED))
    options = parser.parse_args()
    rows, missed = list[tuple[str, ...]](), list[str]()
    with tempfile.TemporaryDirectory() as scratch:
        for case in options.only:
            checkpoint = deep_checkpoint(Path(scratch)) if case == "depth" else EXAMPLE / "wide.pt"
            results = [(arm, run(checkpoint, arm, options.epochs, Path(scratch))) for arm in arms(case)]
            (_, better), (_, other) = results
            differences = [a - b for a, b in zip(better.accuracies, other.accuracies, strict=True)]
            mean = statistics.mean(differences)
            error = STUDENT_T * statistics.stdev(differences) / len(differences) ** 0.5
            for arm, result in results:
                points = " ".join(f"{value:.2f}" for value in result.accuracies)
                average = f"{statistics.mean(result.accuracies):.2f}"
                rows.append((case, arm.name, f"{result.speedup:.2f}x", points, average, ""))
            rows.append(("", "difference", "", "", f"{mean:+.2f}", f"[{mean - error:+.2f}, {mean + error:+.2f}]"))
            print(*rows[-3:], sep="\n", flush=True)
            least, is_above = REQUIRED[case]
            if mean < least or (is_above and mean - error <= 0):
                missed.append(f"{case}: {mean:+.2f} points [{mean - error:+.2f}, {mean + error:+.2f}]")
            ratio = beside_each_other(*(Path(scratch, f"{arm.name}.bundle") for arm, _ in results))
            rows.append(("", "time over time", ratio.words, "", "", ""))
            print(rows[-1], flush=True)
            if abs(ratio.speedup - 1) > 0.03:
                missed.append(f"{case}: {ratio.words} is not the same measured time")
    columns = ("case", "sizes", "measured", "top-1 by seed", "mean", "90 %")
    finish(f"Accuracy at equal time, {options.epochs} epochs of recovery, {SEEDS} seeds", columns, rows, missed)


if __name__ == "__main__":
    main()
