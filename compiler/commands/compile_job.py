"""A task of ``prunec compile``, as it was asked for and as it was understood. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path

from prunec.compiler.facts.settings import Settings
from prunec.compiler.project.config import Config
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.recipe_request import RecipeOptions, ResolvedRecipe
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


@dataclass(frozen=True)
class Prepared:
    """A task with what it means: the files that it names are there, and what it asks for can be.

    Attributes:
        job: The task.
        config: The project file.
        recipe: The steps, and where each of their options is from.
        settings: The settings, with the seed and what the project file says of the dense training.
        optimizers: Names of the optimizers that the training may need, as recipes name them.
        early: Names of the early checkpoints that the pipeline rewinds to.
    """

    job: Job
    config: Config
    recipe: ResolvedRecipe
    settings: Settings
    optimizers: frozenset[str]
    early: tuple[str, ...]
