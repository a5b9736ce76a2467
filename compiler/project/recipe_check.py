"""Which parts of a recipe in prunec.toml exclude each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prunec.compiler.pipeline.own_steps import STEPS
from prunec.passes.errors import UsageError, did_you_mean


def check_recipe(path: Path, pipeline: str | None, steps: Sequence[str] | None, tables: Mapping[str, object]) -> None:
    """Refuse a recipe that contradicts itself.

    Args:
        path: The project file.
        pipeline: The whole pipeline as text, where there is one.
        steps: The list of the steps that run, where there is one.
        tables: The tables of options, by step.

    Raises:
        UsageError: There is a pipeline beside tables or a list, or the list has an unknown step or one twice, or a
            table is of a step that the list leaves out.
    """
    if pipeline is not None and (tables or steps is not None):
        other = f"a table [recipe.{next(iter(tables))}]" if tables else "steps"
        raise UsageError(
            f"{path}: [recipe] has both a pipeline and {other}.",
            hint="Keep one of the two: the pipeline holds the options of its steps.",
        )
    if steps is None:
        return
    for name in steps:
        if name not in STEPS.names():
            raise UsageError(f"{path}: [recipe] steps has no step {name!r}.", hint=did_you_mean(name, STEPS.names()))
        if steps.count(name) > 1:
            raise UsageError(
                f"{path}: [recipe] steps has {name!r} twice.",
                hint='A pipeline as text may have a step several times: pipeline = "..." under [recipe].',
            )
    if idle := [name for name in tables if name not in steps]:
        raise UsageError(
            f"{path}: [recipe.{idle[0]}] is a table of a step that doesn't run: [recipe] steps leaves it out.",
            hint=f"Add {idle[0]!r} to steps, or remove the table.",
        )
