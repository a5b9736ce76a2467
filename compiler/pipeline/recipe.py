"""Recipes: the tables of prunec.toml as a pipeline, and a pipeline as the recipe.toml that gives it again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prunec.compiler.pipeline.own_steps import STEPS, step_kind, steps_of_recipe
from prunec.compiler.pipeline.pipeline import Pipeline, Step, check_known, make_step
from prunec.compiler.pipeline.step_kind import Tables
from prunec.passes.errors import UsageError
from prunec.runtime.target import Target

LISTED = "[recipe] steps"


@dataclass(frozen=True)
class RecipeStep:
    """A step of a recipe.

    Attributes:
        step: The step.
        decided_by: What decides that it runs: "default", "target", a table's name, or `LISTED`.
        defaults: Options that its table doesn't give, with what decides them: "default", "target", a table's name.
    """

    step: Step
    decided_by: str
    defaults: Mapping[str, str] = field(default_factory=dict)


def recipe_steps(
    tables: Tables, target: Target, has_data: bool = False, listed: Sequence[str] | None = None
) -> list[RecipeStep]:
    """The steps that a recipe asks for, each with its defaults where its table doesn't give an option.

    Args:
        tables: Options by step; a table that is missing leaves all of its step at their defaults.
        target: The target, which decides whether there is 2:4, and how widths are rounded.
        has_data: Whether there are labelled data, with which the network is retrained.
        listed: The steps that run, in their order; None where the defaults decide (`steps_of_recipe`).

    Raises:
        UsageError: A step or an option is unknown, or a value is impossible.
    """
    for name in (*tables, *(listed or ())):
        check_known(name)
    running = steps_of_recipe(tables, target, has_data) if listed is None else dict.fromkeys(listed, LISTED)
    # Tables of steps that this target doesn't take are read all the same, so that a mistake in them shows.
    made = {name: _made(name, tables, target) for name in (*running, *tables)}
    return [RecipeStep(made[name][0], decided_by, made[name][1]) for name, decided_by in running.items()]


def from_recipe(
    tables: Tables, target: Target, has_data: bool = False, listed: Sequence[str] | None = None
) -> Pipeline:
    """The pipeline of `recipe_steps`."""
    return Pipeline(tuple(each.step for each in recipe_steps(tables, target, has_data, listed)))


def recipe_text(pipeline: Pipeline, seed: int) -> str:
    """Text of recipe.toml: a recipe that gives a pipeline again."""
    # A JSON string is a TOML string, but for the character 127.
    quoted = json.dumps(str(pipeline), ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[recipe]\nseed = {seed}\npipeline = {quoted}\n"


def underscored(name: str, table: Mapping[str, object]) -> dict[str, object]:
    """A step's table with the names of its options as its class has them.

    Raises:
        UsageError: An option is given in both spellings.
    """
    given: dict[str, object] = {}
    for key, value in table.items():
        if (spelt := key.replace("-", "_")) in given:
            dashed = spelt.replace("_", "-")
            raise UsageError(f"[recipe.{name}] has {spelt!r} twice, also as {dashed!r}.", hint="Keep one of the two.")
        given[spelt] = value
    return given


def _made(name: str, tables: Tables, target: Target) -> tuple[Step, dict[str, str]]:
    """A step, and what decides the options that its table doesn't give."""
    given = underscored(name, tables.get(name, {}))
    kind = step_kind(name)
    with STEPS.blame(name):
        defaults = kind.defaults(target, tables)
    sources = {key: kind.default_sources.get(key, "default") for key in defaults if key not in given}
    return make_step(name, {**defaults, **given}), sources
