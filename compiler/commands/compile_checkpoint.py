"""``prunec compile``: from a checkpoint and what its project file and the command line say to a bundle."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from prunec.compiler.bundle.bundle_names import default_output
from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.project.checkpoint import LoadedCheckpoint, build_module
from prunec.compiler.project.project import ModelOptions, Project, check_fit
from prunec.compiler.project.recipe_request import RecipeOptions, resolve_recipe
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.report.report import Report
from prunec.compiler.stages.driver import compile_model
from prunec.passes.program import Program
from prunec.runtime.target import Target


@dataclass(frozen=True)
class Job:
    """One task of ``prunec compile``.

    Attributes:
        checkpoint: The trained network.
        target: Target to compile for.
        config: The project file; by default the one beside the checkpoint, else in the working directory.
        model: Options on how to read the checkpoint.
        recipe: The recipe's options on the command line.
        settings: Measurements and gates; the seed is the recipe's, the dense training the project file's.
        output: Folder of the bundle; ``<checkpoint stem>.<target>.bundle`` beside the checkpoint by default.
        force: Whether an existing bundle is replaced.
    """

    checkpoint: Path
    target: Target
    config: Path | None = None
    model: ModelOptions = field(default_factory=ModelOptions)
    recipe: RecipeOptions = field(default_factory=RecipeOptions)
    settings: Settings = field(default_factory=Settings)
    output: Path | None = None
    force: bool = False


def compile_checkpoint(job: Job, note: Callable[[str], None]) -> tuple[Report, Path]:
    """Compile a checkpoint and write its bundle.

    Args:
        job: The task.
        note: Receiver of remarks on what was done to the checkpoint on the way.

    Returns:
        The report, also where a gate failed, and the bundle's folder.

    Raises:
        PrunecError: The compile can't be done; then nothing is written.
    """
    project, progress = Project.find(job.checkpoint, job.config), job.settings.progress
    recipe = resolve_recipe(project.config, job.recipe, job.target)
    pipeline, seed = recipe.pipeline, recipe.seed
    for text in recipe.notes:
        note(text)
    progress.stage("load the checkpoint")
    loaded = project.load(job.checkpoint, job.model)
    for text in loaded.notes:
        note(text)
    progress.stage("load the data")
    data, objective = project.data(seed), project.objective()
    if data is not None:
        check_fit(loaded.program, data, objective)
    output = job.output or default_output(job.checkpoint, job.target)
    settings = replace(
        job.settings,
        seed=seed,
        pretraining=project.pretraining(),
        pretraining_optimizer=project.pretraining_optimizer(),
        optimizers=_optimizers(project, pipeline),
        early=_early(project, pipeline, job.model),
        model_name=project.config.model.name,
        module=_module(project, loaded, job) if job.settings.controls else None,
        initialise=project.initialise(),
    )
    report = compile_model(
        loaded.program, job.target, pipeline, data, output, objective=objective, settings=settings, force=job.force
    )
    return report, output


def _module(project: Project, loaded: LoadedCheckpoint, job: Job) -> nn.Module | None:
    """The network as its factory builds it, else as the checkpoint holds it, for control arms from scratch."""
    factory = project.factory(job.model)
    return loaded.module if factory is None else build_module(factory)


def _optimizers(project: Project, pipeline: Pipeline) -> dict[str, Callable[..., Any]]:
    """The functions that make the recoveries' optimizers; the dense training's only where one may be trained by it."""
    recoveries = pipeline.of(Recover)
    dense = project.pretraining_optimizer() if recoveries else None
    return project.optimizers({str(options.optimizer) for options in recoveries} | {dense or ""})


def _early(project: Project, pipeline: Pipeline, model: ModelOptions) -> dict[str, Program]:
    """The early checkpoints that the pipeline rewinds to, by the name that it gives them."""
    names = {options.early for options in pipeline.of(Recover)} - {""}
    return {name: project.load(project.config.folder / name, model).program for name in sorted(names)}
