"""What channel permutation brings the example: accuracy with and without, one-shot and recovered, and magnitude kept.

For every dense checkpoint the example's recipe is compiled for a100-2:4 twice, with `permute` before `sparsify` and
without. Checkpoints of other seeds come from examples/fashion_mnist/train.py --seed N.

Run from the top folder: python -m benchmarks.permutation_example [CHECKPOINT ...]
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.tables import finish
from prunec.compiler.commands.compile_checkpoint import compile_checkpoint
from prunec.compiler.commands.compile_job import Job
from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.pipeline.recipe import from_recipe
from prunec.compiler.project.project import Project
from prunec.compiler.project.recipe_request import RecipeOptions
from prunec.compiler.report.report import Report
from prunec.passes.unknown import Unknown
from prunec.runtime.target import Target

EXAMPLE = Path("examples/fashion_mnist/model.pt")
_TARGET = Target.parse("a100-2:4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, default=[EXAMPLE])
    rows, missed = [], []
    for checkpoint in parser.parse_args().checkpoints:
        without, permuted = (compiled(checkpoint, permute) for permute in (False, True))
        gains = retained_gains(permuted)
        worst = min(gains, key=lambda layer: gains[layer])
        if gains[worst] < 0:
            missed.append(f"{checkpoint.name}: {worst} keeps {-gains[worst]:.2e} less of its magnitude")
        rows.append(
            (
                checkpoint.name,
                percent(permuted.accuracy.dense),
                percent(permuted.accuracy.pruned),
                f"{percent(without.accuracy.sparse)} -> {percent(permuted.accuracy.sparse)}",
                f"{percent(without.accuracy.recovered)} -> {percent(permuted.accuracy.recovered)}",
                f"{100 * gains[worst]:+.2f} to {100 * max(gains.values()):+.2f} points in {len(gains)} layers",
            )
        )
    columns = ("checkpoint", "dense", "pruned", "2:4 one-shot", "recovered", "magnitude kept by permutation")
    finish("Example on a100-2:4, without -> with permutation, top-1 on the test images", columns, rows, missed)


def compiled(checkpoint: Path, permute: bool) -> Report:
    """The example's recipe, with or without permutation."""
    config = EXAMPLE.with_name("prunec.toml")
    tables = Project.find(EXAMPLE).config.recipe.by_step
    assert tables is not None
    steps = from_recipe(tables, _TARGET, has_data=True).steps
    pipeline = Pipeline(tuple(step for step in steps if permute or step.name != "permute"))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            checkpoint,
            _TARGET,
            config,
            recipe=RecipeOptions(pipeline=str(pipeline)),
            settings=Settings(build_engine=False, latency_runs=2),
            output=Path(folder) / "bundle",
        )
        report, _ = compile_checkpoint(job, print)
    return report


def retained_gains(report: Report) -> dict[str, float]:
    """Share of its magnitude that each eligible layer keeps more, by the new order."""
    gains = {
        layer.name: layer.sparsity.permutation_gain
        for layer in report.layers
        if not isinstance(layer.sparsity, Unknown)
    }
    return {name: gain for name, gain in gains.items() if isinstance(gain, float)}


def percent(fraction: float | Unknown) -> str:
    return "-" if isinstance(fraction, Unknown) else f"{100 * fraction:.2f} %"


if __name__ == "__main__":
    main()
