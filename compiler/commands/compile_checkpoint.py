"""``prunec compile``: from a checkpoint and what its project file and the command line say to a bundle."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from prunec.compiler.bundle.bundle_names import bundle_name
from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.pipeline import Pipeline, parse_pipeline
from prunec.compiler.pipeline.recipe import default_recipe, from_recipe
from prunec.compiler.project.checkpoint import LoadedCheckpoint, build_module
from prunec.compiler.project.config import Config
from prunec.compiler.project.project import ModelOptions, Project, check_fit
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.report.report import Report
from prunec.compiler.stages.driver import compile_model
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from prunec.runtime.target import Target


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe's options on the command line; None leaves an option to the project file.

    Attributes:
        pipeline: The whole pipeline as text.
        speedup: Dense over compiled MACs.
        ratio: Fraction of filters to remove in every group.
        epochs: Length of the recovery finetune; 0 leaves it out.
        seed: Seed of every random choice.
    """

    pipeline: str | None = None
    speedup: float | None = None
    ratio: float | None = None
    epochs: int | None = None
    seed: int | None = None


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
        output: Folder of the bundle; ``<checkpoint stem>.<target>.bundle`` in the working directory by default.
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
    pipeline = resolve_pipeline(project.config, job.recipe, job.target)
    seed = project.config.recipe.seed if job.recipe.seed is None else job.recipe.seed
    progress.stage("load the checkpoint")
    loaded = project.load(job.checkpoint, job.model)
    for text in loaded.notes:
        note(text)
    progress.stage("load the data")
    data, objective = project.data(seed), project.objective()
    if data is not None:
        check_fit(loaded.program, data, objective)
    output = job.output or Path(bundle_name(job.checkpoint, str(job.target)))
    settings = replace(
        job.settings,
        seed=seed,
        pretraining=project.pretraining(),
        pretraining_optimizer=project.pretraining_optimizer(),
        optimizers=_optimizers(project, pipeline),
        early=_early(project, pipeline, job.model),
        model_name=project.config.model.name,
        stated_accuracy=project.config.model.accuracy,
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
