"""``prunec compile``: from a checkpoint and what its project file and the command line say to a bundle."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunec.compiler.bundle import bundle_name
from prunec.compiler.compilation import Settings
from prunec.compiler.config import Config
from prunec.compiler.driver import compile_model
from prunec.compiler.pipeline import Pipeline, default_recipe, from_recipe, parse_pipeline
from prunec.compiler.progress import Progress
from prunec.compiler.project import ModelOptions, Project, check_fit
from prunec.compiler.recovery.options import Recover
from prunec.compiler.report import Report
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from prunec.runtime.target import Target


@dataclass(frozen=True)
class RecipeOptions:
    """What the command line says of the recipe; None leaves it to the project file.

    Attributes:
        pipeline: the whole pipeline as text.
        speedup: dense over compiled MACs.
        ratio: fraction of filters to remove in every group.
        epochs: of the recovery finetune; 0 leaves it out.
        seed: of every random choice.
    """

    pipeline: str | None = None
    speedup: float | None = None
    ratio: float | None = None
    epochs: int | None = None
    seed: int | None = None


def compile_checkpoint(
    checkpoint: Path,
    target: Target,
    *,
    config: Path | None = None,
    model: ModelOptions,
    recipe: RecipeOptions,
    settings: Settings,
    output: Path | None = None,
    force: bool = False,
    progress: Progress,
    note: Callable[[str], None],
) -> tuple[Report, Path]:
    """Compile a checkpoint and write its bundle.

    Args:
        checkpoint: the trained network.
        target: what for.
        config: project file; by default the one beside the checkpoint, else in the working directory.
        model: how to read the checkpoint.
        recipe: overrides of the recipe.
        settings: measurement and gates; the seed is the recipe's, the dense training the project file's.
        output: folder of the bundle, ``<checkpoint stem>.<target>.bundle`` in the working directory by default.
        force: replace an existing bundle.
        progress: told what goes on.
        note: told what was done to the checkpoint on the way.

    Returns:
        The report, also where a gate failed, and the bundle's folder.

    Raises:
        PrunecError: the compile can't be done; then nothing is written.
    """
    project = Project.find(checkpoint, config)
    pipeline = resolve_pipeline(project.config, recipe, target)
    seed = project.config.recipe.seed if recipe.seed is None else recipe.seed
    progress.stage("load the checkpoint")
    loaded = project.load(checkpoint, model)
    for text in loaded.notes:
        note(text)
    progress.stage("load the data")
    data, objective = project.data(seed), project.objective()
    if data is not None:
        check_fit(loaded.program, data, objective)
    output = output or Path(bundle_name(checkpoint, str(target)))
    report = compile_model(
        loaded.program,
        target,
        pipeline,
        data,
        output,
        objective=objective,
        settings=replace(
            settings,
            seed=seed,
            pretraining=project.pretraining(),
            early=_early(project, pipeline, model),
            module=loaded.module,
            initialise=project.initialise(),
        ),
        force=force,
        recipe=resolved_recipe(pipeline, seed),
        progress=progress,
    )
    return report, output


def _early(project: Project, pipeline: Pipeline, model: ModelOptions) -> dict[str, Program]:
    """The early checkpoints that the pipeline rewinds to, by the name that it gives them."""
    names = {step.options.early for step in pipeline.steps if isinstance(step.options, Recover)} - {""}
    return {name: project.load(project.config.folder / name, model).program for name in sorted(names)}


def resolve_pipeline(config: Config, options: RecipeOptions, target: Target) -> Pipeline:
    """The pipeline that the project file and the command line ask for.

    Where the project file has no recipe: half the MACs, and a recovery finetune if it names data.

    Raises:
        UsageError: they contradict each other, or the pipeline can't be.
    """
    text = options.pipeline if options.pipeline is not None else config.recipe.pipeline
    if text is not None:
        _refuse_overrides(options)
        pipeline = parse_pipeline(text)
    else:
        tables = config.recipe.tables() or default_recipe(has_data=config.data is not None)
        pipeline = from_recipe(_overridden(tables, options), target)
    if target.sparse and not any(step.name == "sparsify" for step in pipeline.steps):
        raise UsageError(
            f"Target {target} asks for 2:4, and the pipeline has no sparsify.",
            hint=f"Add sparsify to it, or compile for {target.device}-dense-{target.precision}.",
        )
    return pipeline


def resolved_recipe(pipeline: Pipeline, seed: int) -> str:
    """Text of recipe.toml: a recipe that gives this pipeline again."""
    quoted = str(pipeline).replace("\\", "\\\\").replace('"', '\\"')
    return f'[recipe]\nseed = {seed}\npipeline = "{quoted}"\n'


def _refuse_overrides(options: RecipeOptions) -> None:
    for flag, value in (("--speedup", options.speedup), ("--ratio", options.ratio), ("--epochs", options.epochs)):
        if value is not None:
            raise UsageError(
                f"{flag} changes the recipe's tables, but here a pipeline in text form says what is done.",
                hint=f"Write it into the pipeline instead of giving {flag}.",
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
