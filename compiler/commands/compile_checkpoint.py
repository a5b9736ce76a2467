"""``prunec compile``: from a checkpoint and what its project file and the command line say to a bundle.

Imports no torch, so that a wrong task is refused at once: see `compile_network` for the work.
"""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunec.compiler.bundle.bundle_names import bundle_name
from prunec.compiler.bundle.bundle_writer import BundleWriter
from prunec.compiler.commands.compile_job import Job, Prepared, RecipeOptions
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.pipeline.recipe import default_recipe, from_recipe
from prunec.compiler.project.checkpoint_file import check_file
from prunec.compiler.project.config import Config, find_config, load_config
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.stages.request_checks import check_controls, check_needs, check_recoveries
from prunec.passes.errors import EnvironmentFailure, UsageError
from prunec.passes.interruption import stoppable_anywhere
from prunec.runtime.target import Target

if TYPE_CHECKING:
    from prunec.compiler.report.report import Report

#: What a report takes, most of it the code that draws its charts.
_REPORT_BYTES = 10_000_000


def compile_checkpoint(job: Job, note: Callable[[str], None]) -> "tuple[Report, Path]":
    """Compile a checkpoint and write its bundle.

    What can be told without the network and its data is checked first, before torch is loaded: the task itself, then
    that the output can be written and no other run does so.

    Args:
        job: The task.
        note: Receiver of remarks on what was done to the checkpoint on the way.

    Returns:
        The report, also where a gate failed, and the bundle's folder.

    Raises:
        PrunecError: The compile can't be done; then nothing is written.
    """
    prepared = prepare(job)
    output = job.output or Path(bundle_name(job.checkpoint, str(job.target)))
    writer = BundleWriter(output, job.force, seed=prepared.settings.seed, ends_training=True)
    _check_space(writer.path, job.checkpoint)
    with writer if is_main() else nullcontext():
        with stoppable_anywhere():  # which takes seconds
            from prunec.compiler.commands.compile_network import compile_network

        return compile_network(prepared, writer, note), output


def prepare(job: Job) -> Prepared:
    """Find out what a task means.

    Raises:
        PrunecError: It names files that aren't there, or asks for what can't be.
    """
    config = load_config(find_config(job.checkpoint, job.config))
    pipeline, dense = resolve_pipeline(config, job.recipe, job.target), config.model.pretraining
    settings = replace(
        job.settings,
        seed=config.recipe.seed if job.recipe.seed is None else job.recipe.seed,
        pretraining=None if dense is None else dense.learning_rates(),
        pretraining_optimizer=None if dense is None else dense.optimizer,
        model_name=config.model.name,
    )
    recoveries: list[Recover] = pipeline.of(Recover)
    optimizers = {str(options.optimizer) for options in recoveries}
    optimizers |= {settings.pretraining_optimizer or ""} if recoveries else set()
    functions = frozenset(name for name in optimizers if ":" in name)
    early = tuple(sorted({options.early for options in recoveries} - {""}))
    check_needs(pipeline, config.data is not None)
    check_recoveries(pipeline, settings, functions, early)
    check_controls(pipeline, settings, config.data is not None, functions)
    for path in (job.checkpoint, *(config.folder / name for name in early)):
        check_file(path)
    return Prepared(job, config, pipeline, settings, functions, early)


def _check_space(output: Path, checkpoint: Path) -> None:
    """Refuse a disk that can't hold the dense network once more, as the compile does beside what it makes of it.

    Raises:
        EnvironmentFailure: The disk is too full.
    """
    needed, folder = checkpoint.stat().st_size + _REPORT_BYTES, output.parent
    free = shutil.disk_usage(folder).free if folder.is_dir() else needed
    if free < needed:
        raise EnvironmentFailure(
            f"Output {output} cannot be written: its disk has {free / 1e6:.0f} MB left, and at least "
            f"{needed / 1e6:.0f} MB are needed.",
            hint="Make room, or name another output with -o.",
        )


def resolve_pipeline(config: Config, options: RecipeOptions, target: Target) -> Pipeline:
    """The pipeline that the project file and the command line ask for.

    Where the project file has no recipe: half the MACs, and a recovery finetune if it names data.

    Raises:
        UsageError: They contradict each other, or there can be no such pipeline.
    """
    text = options.pipeline if options.pipeline is not None else config.recipe.pipeline
    if text is not None:
        _refuse_overrides(options)
        pipeline = parse_pipeline(text)
    else:
        tables = config.recipe.by_step or default_recipe(has_data=config.data is not None)
        pipeline = from_recipe(_overridden(tables, options), target)
    if target.sparse and not any(step.name == "sparsify" for step in pipeline.steps):
        raise UsageError(
            f"Target {target} asks for 2:4, and the pipeline has no sparsify.",
            hint=f"Add sparsify to it, or compile for {target.device}-dense-{target.precision}.",
        )
    return pipeline


def _refuse_overrides(options: RecipeOptions) -> None:
    for name in ("speedup", "ratio", "epochs"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name} changes the recipe's tables, but here a pipeline in text form says what is done.",
                hint=f"Write it into the pipeline instead of giving --{name}.",
            )


def _overridden(tables: dict[str, dict[str, Any]], options: RecipeOptions) -> dict[str, dict[str, Any]]:
    """The recipe's tables with the flags laid over them; a flag without a table makes one."""
    if options.speedup is not None and options.ratio is not None:
        raise UsageError("--speedup and --ratio exclude each other.", hint="Give one of the two.")
    result = {name: dict(table) for name, table in tables.items()}
    for key, other in (("speedup", "ratio"), ("ratio", "speedup")):
        value = getattr(options, key)
        if value is not None:
            table = result.setdefault("prune-filters", {})
            table.pop(other, None)
            table[key] = value
    if options.epochs == 0:
        result.pop("recover", None)
    elif options.epochs is not None:
        result.setdefault("recover", {})["epochs"] = options.epochs
    return result
