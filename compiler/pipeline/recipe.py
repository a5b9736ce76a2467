"""Recipes: the tables of prunec.toml as a pipeline, and a pipeline as the recipe.toml that gives it again."""

import json
from typing import Any

from prunec.compiler.pipeline.own_steps import STEPS, in_recipe_order, step_kind
from prunec.compiler.pipeline.pipeline import Pipeline, check_known, make_step
from prunec.compiler.pipeline.step_kind import Tables
from prunec.runtime.target import Target


def from_recipe(tables: Tables, target: Target) -> Pipeline:
    """The pipeline that recipe tables ask for: a step for each of them, and on sparse targets permute and sparsify.

    Widths are rounded to the target's channel multiple, and at least `MIN_CHANNELS` filters kept per group, unless the
    table says otherwise.

    Raises:
        UsageError: A step or an option is unknown, or a value is impossible.
    """
    for name in tables:
        check_known(name)
    kinds = in_recipe_order(tables, sparse=target.sparse)
    # Tables of steps that this target doesn't take are read all the same, so that a mistake in them shows.
    kinds += [kind for kind in map(step_kind, tables) if kind not in kinds]
    steps = {kind.name: make_step(kind.name, _options(kind.name, tables, target)) for kind in kinds}
    return Pipeline(tuple(steps[kind.name] for kind in in_recipe_order(tables, sparse=target.sparse)))


def default_recipe(has_data: bool) -> dict[str, dict[str, Any]]:
    """Tables of the recipe where none is given: half the MACs, and a recovery finetune where there are data for it."""
    tables: dict[str, dict[str, Any]] = {"prune-filters": {"speedup": 2.0}}
    return {**tables, "recover": {"epochs": 20}} if has_data else tables


def recipe_text(pipeline: Pipeline, seed: int) -> str:
    """Text of recipe.toml: a recipe that gives a pipeline again."""
    # A JSON string is a TOML string, but for the character 127.
    quoted = json.dumps(str(pipeline), ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[recipe]\nseed = {seed}\npipeline = {quoted}\n"


def _options(name: str, tables: Tables, target: Target) -> dict[str, object]:
    given = {key.replace("-", "_"): value for key, value in tables.get(name, {}).items()}
    with STEPS.blame(name):
        return {**step_kind(name).defaults(target, tables), **given}
