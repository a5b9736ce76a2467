"""``prunec measure-costs``: measure a checkpoint's cost model into a file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prunec.compiler.machine.writable import check_file_can_be_written
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Note, Project
from prunec.passes.costs.fitted import FittedCosts
from prunec.passes.whole_file import write_whole
from prunec.runtime.costs.cost_file import costs_json
from prunec.runtime.costs.measuring import measure_costs
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.target import Target


@dataclass(frozen=True)
class CostSettings:
    """Target, samples at once, CPU threads, seed of variants and the order of their runs, options of the engines."""

    target: Target
    batch: int = 1
    threads: int = 1
    seed: int = 0
    options: EngineOptions = field(default_factory=EngineOptions)


def measure_checkpoint(
    checkpoint: Path,
    output: Path,
    settings: CostSettings,
    *,
    config: Path | None,
    model: ModelOptions,
    note: Note = None,
    progress: Callable[[str], None] = lambda _: None,
) -> FittedCosts:
    """Measure a checkpoint's cost model on this machine, and write it as a whole or not at all.

    ``note`` receives the sentence that says whose code may run, ``progress`` what happens.

    Raises:
        PrunecError: The checkpoint can't be loaded, the cost model not be measured here, or the file not be written.
    """
    check_file_can_be_written(output, f"--output {output}")
    program = Project.find(checkpoint, config, note).load(checkpoint, model, note).program
    costs = measure_costs(
        program,
        settings.target,
        batch=settings.batch,
        threads=settings.threads,
        seed=settings.seed,
        options=settings.options,
        progress=progress,
    )
    write_whole(output, costs_json(costs))
    return costs
