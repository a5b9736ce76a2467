"""The example on all 60,000 images, half the MACs and 2:4: what the default schedule recovers, and what others do.

For every seed the recipe of examples/fashion_mnist/full.toml with its 15 epochs by the default schedule, by plain
fine-tuning (the last learning rate of the dense training), and, with --best, 40 epochs by the default schedule with the
dense network as a teacher. Needs Debian's package dataset-fashion-mnist. Half an hour on one core, an hour more with
--best.

Run from the top folder: python -m benchmarks.full_recovery [--best]
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.tables import finish
from prunec.compiler.commands.compile_checkpoint import compile_checkpoint
from prunec.compiler.commands.compile_job import Job
from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.pipeline import Pipeline, Step
from prunec.compiler.pipeline.recipe import from_recipe
from prunec.compiler.project.project import Project
from prunec.compiler.project.recipe_request import RecipeOptions
from prunec.compiler.recovery.recover_options import Recover
from prunec.passes.unknown import Unknown
from prunec.runtime.target import Target

EXAMPLE = Path("examples/fashion_mnist/model.pt")
_CONFIG = EXAMPLE.with_name("full.toml")
_TARGET = Target.parse("a100-2:4")
_SEEDS = (0, 1, 2)
_LIMIT_POINTS, _BEST_LIMIT_POINTS = 0.2, 0.0
_BEST = {"epochs": 40, "distill": 4.0, "distill_weight": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--best", action="store_true", help="also the best recipe, 40 epochs")
    best = parser.parse_args().best
    arms: dict[str, dict[str, object]] = {"default": {}, "fine-tuning": {"schedule": "ft"}}
    arms |= {"best": _BEST} if best else {}
    lost = {name: [drop_points(changes, seed) for seed in _SEEDS] for name, changes in arms.items()}
    missed = []
    if statistics.mean(lost["default"]) > _LIMIT_POINTS:
        missed.append(f"the default loses more than {_LIMIT_POINTS} points")
    if any(default >= tuned for default, tuned in zip(lost["default"], lost["fine-tuning"], strict=True)):
        missed.append("the default isn't better than fine-tuning with every seed")
    if best and statistics.mean(lost["best"]) > _BEST_LIMIT_POINTS:
        missed.append("the best recipe loses accuracy")
    rows = [(name, *(f"{d:+.2f}" for d in drops), f"{statistics.mean(drops):+.2f}") for name, drops in lost.items()]
    finish(
        "Points of top-1 lost on 10,000 test images", ("recipe", *(f"seed {s}" for s in _SEEDS), "mean"), rows, missed
    )


def drop_points(changes: dict[str, object], seed: int) -> float:
    """Accuracy of the dense network less that of the recovered one, with some of the recovery's options changed."""
    project = Project.find(EXAMPLE, _CONFIG)
    steps = from_recipe(project.config.recipe.by_step, _TARGET, has_data=True).steps
    pipeline = Pipeline(tuple(_changed(step, changes) for step in steps))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            EXAMPLE,
            _TARGET,
            _CONFIG,
            recipe=RecipeOptions(pipeline=str(pipeline), seed=seed),
            settings=Settings(build_engine=False, latency_runs=10),
            output=Path(folder) / "example.bundle",
        )
        report, _ = compile_checkpoint(job, lambda _: None)
    assert not isinstance(report.accuracy.dense, Unknown)
    assert not isinstance(report.accuracy.recovered, Unknown)
    return 100 * (report.accuracy.dense - report.accuracy.recovered)


def _changed(step: Step, changes: dict[str, object]) -> Step:
    if isinstance(step.options, Recover):
        return Step(step.name, replace(step.options, **changes))  # type: ignore[arg-type]
    return step


if __name__ == "__main__":
    main()
