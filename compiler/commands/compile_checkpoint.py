"""``prunec compile``: from a checkpoint and what its project file and the command line say to a bundle.

Imports no torch, so that a wrong task is refused at once: see `compile_network` for the work.
"""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunec.calibration.source_files import check_sources
from prunec.compiler.bundle.bundle_names import default_output
from prunec.compiler.bundle.bundle_writer import BundleWriter, refuse_states
from prunec.compiler.commands.compile_job import Job, Prepared
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.project.checkpoint_file import check_file, stored_bytes
from prunec.compiler.project.named_code import find_project
from prunec.compiler.project.recipe_request import resolve_recipe
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.scalars import check_tensorboard
from prunec.compiler.stages.dense_trainings import SCRATCH_ARM, check_own_training, implied, own_training
from prunec.compiler.stages.early_checks import check_names
from prunec.compiler.stages.low_rank_checks import check_decompositions
from prunec.compiler.stages.precision_checks import check_precision
from prunec.compiler.stages.request_checks import (
    check_controls,
    check_needs,
    check_patterns,
    check_pruning_files,
    check_recoveries,
    check_trained_choices,
)
from prunec.passes.errors import EnvironmentFailure, UsageError
from prunec.passes.interruption import endable_anywhere

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
    prepared = prepare(job, note, runs=True)
    output, writer = output_of(prepared)
    with writer if is_main() else nullcontext():
        with endable_anywhere():  # which takes seconds
            from prunec.compiler.commands.compile_network import compile_network

        return compile_network(prepared, writer, note), output


def output_of(prepared: Prepared) -> tuple[Path, BundleWriter]:
    """The output of a task, as it is named to the user, and what writes it.

    Raises:
        PrunecError: It can't be the output: see `BundleWriter`, `refuse_states`; or its disk is too full.
    """
    job = prepared.job
    output = job.output or default_output(job.checkpoint, job.target)
    if job.output is None and output.is_symlink():  # of whoever packed the folder that the checkpoint came in
        raise UsageError(f"{output} is a link.", hint="Remove it, or name an output with -o.")
    writer = BundleWriter(output, job.force, seed=prepared.settings.seed, ends_training=True)
    refuse_states(writer.state_folder, resume=prepared.settings.resume, force=job.force)
    _check_space(writer.path, job.checkpoint)
    return output, writer


def prepare(job: Job, note: Callable[[str], None], *, runs: bool) -> Prepared:
    """Find out what a task means.

    Args:
        job: The task.
        note: Receiver of the sentences that say whose code may run, and what a reader of the recipe may not expect.
        runs: Whether the task is done next, so that code runs.

    Raises:
        PrunecError: It names files that aren't there, or asks for what can't be.
    """
    config = find_project(job.checkpoint, job.config, note if runs else None)
    recipe = resolve_recipe(config, job.recipe, job.target)
    for text in recipe.notes:
        note(text)
    pipeline, dense = recipe.pipeline, config.model.pretraining
    settings = replace(
        job.settings,
        seed=recipe.seed,
        pretraining=None if dense is None else dense.learning_rates(),
        pretraining_optimizer=None if dense is None else dense.optimizer,
        model_name=config.model.name,
        stated_accuracy=config.model.accuracy,
    )
    asked, has_data = settings.controls, config.data is not None
    settings = implied(settings, pipeline, has_data=has_data)
    if settings.controls != asked:
        note(f"Masks are made of random weights: the control arm {SCRATCH_ARM} runs, too.")
    recoveries: list[Recover] = pipeline.of(Recover)
    optimizers = {str(options.optimizer) for options in recoveries}
    optimizers |= {settings.pretraining_optimizer or ""} if recoveries else set()
    functions = frozenset(name for name in optimizers if ":" in name)
    kept = {""} if own_training(pipeline) is None else {"", Pretrain.name}
    early = tuple(sorted({options.early for options in recoveries} - kept))
    check_own_training(pipeline, bool(job.model.factory or config.model.factory))
    check_patterns(pipeline, job.target)
    check_precision(pipeline, job.target)
    check_needs(pipeline, has_data)
    check_trained_choices(pipeline)
    check_decompositions(pipeline)
    check_pruning_files(pipeline, settings)
    check_recoveries(pipeline, settings, functions, early)
    check_controls(pipeline, settings, has_data, functions)
    check_names(pipeline, job.target, settings, has_data)
    for path in (job.checkpoint, *(config.folder / name for name in early)):
        check_file(path)
    if config.data is not None:
        check_sources(config.data.sources(), config.folder)
    if settings.tensorboard is not None:
        check_tensorboard(settings.tensorboard)
    return Prepared(job, config, recipe, settings, functions, early)


def _check_space(output: Path, checkpoint: Path) -> None:
    """Refuse a disk that can't hold the dense network once more, as the compile does beside what it makes of it.

    Raises:
        EnvironmentFailure: The disk is too full.
    """
    needed, folder = stored_bytes(checkpoint) + _REPORT_BYTES, output.parent
    free = shutil.disk_usage(folder).free if folder.is_dir() else needed
    if free < needed:
        raise EnvironmentFailure(
            f"Output {output} cannot be written: its disk has {free / 1e6:.0f} MB left, and at least "
            f"{needed / 1e6:.0f} MB are needed.",
            hint="Make room, or name another output with -o.",
        )
