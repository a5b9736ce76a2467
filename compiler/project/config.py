"""The project file prunec.toml: network, data and recipe."""

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, StrictFloat, StrictInt, ValidationError, create_model, model_validator

from prunec.calibration.config import DataConfig
from prunec.compiler.pipeline.own_steps import STEPS
from prunec.compiler.project.model_section import ModelSection, Reference, Section
from prunec.compiler.project.recipe_check import check_recipe
from prunec.compiler.project.toml_document import read_toml
from prunec.passes.boundary import shortened
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.seeds import MAX_SEED

CONFIG_NAME = "prunec.toml"
#: pydantic's name of a problem -> what was expected, in words of TOML.
_EXPECTED = {
    "tuple_type": "a list",
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "model_type": "a table",
    "dict_type": "a table",
}


def _strict(annotation: Any) -> Any:
    """A type as TOML has it: text in quotes is no number, and true is none either."""
    arguments = typing.get_args(annotation)
    if not arguments:
        return {float: StrictFloat, int: StrictInt}.get(annotation, annotation)
    if isinstance(annotation, types.UnionType):
        return functools.reduce(operator.or_, map(_strict, arguments))
    return typing.get_origin(annotation)[tuple(map(_strict, arguments))]


_DATA_FIELDS: dict[str, Any] = {
    field.name: (_strict(hint), ... if field.default is dataclasses.MISSING else field.default)
    for field, hint in zip(dataclasses.fields(DataConfig), typing.get_type_hints(DataConfig).values(), strict=True)
}


class DataSection(create_model("_DataFields", __base__=Section, **_DATA_FIELDS)):  # type: ignore[misc]
    """[data]: the fields of `DataConfig`; loss and metric are "module:callable" relative to the file."""

    loss: Reference | None = None
    metric: Reference | None = None

    def sources(self) -> DataConfig:
        """The sources of the data and their preprocessing.

        Raises:
            UsageError: A value is unknown or out of its range.
        """
        return DataConfig(**self.model_dump(exclude={"loss", "metric"}))


class RecipeSection(Section):
    """[recipe]: a pipeline as text, or tables of its steps' options, by the step's name.

    Attributes:
        seed: Seed of every random choice.
        pipeline: The whole pipeline as text.
        steps: The steps that run, in their order; by default those of `steps_of_recipe`.
        by_step: The tables of the steps' options.
    """

    seed: StrictInt = Field(default=0, ge=0, le=MAX_SEED)
    pipeline: str | None = None
    steps: tuple[str, ...] | None = None
    by_step: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, section: Any) -> Any:
        """The tables of steps together; what is left and unknown is an error."""
        if not isinstance(section, dict):
            return section
        tables = {key: value for key, value in section.items() if key in STEPS.names()}
        return {key: value for key, value in section.items() if key not in tables} | {"by_step": tables}


class Config(Section):
    """The whole file; every part of it is optional."""

    model: ModelSection = ModelSection()
    data: DataSection | None = None
    recipe: RecipeSection = RecipeSection()
    _path: Path | None = None

    @property
    def path(self) -> Path | None:
        """The file that this was read from; None where there is none."""
        return self._path

    @property
    def folder(self) -> Path:
        """Folder that paths and modules in the file are relative to."""
        return self._path.parent if self._path is not None else Path.cwd()


def find_config(checkpoint: Path | None = None, explicit: Path | None = None) -> Path | None:
    """The project file that counts: the one asked for, else the checkpoint's folder's, else the working directory's.

    Raises:
        UsageError: The one asked for doesn't exist.
    """
    if explicit is not None:
        if not explicit.is_file():
            what = "is a folder" if explicit.is_dir() else "doesn't exist"
            raise UsageError(f"The project file {explicit} {what}.", hint=f"--config takes a {CONFIG_NAME}.")
        return explicit
    folders = [Path.cwd()] if checkpoint is None else [checkpoint.parent, Path.cwd()]
    return next((folder / CONFIG_NAME for folder in folders if (folder / CONFIG_NAME).is_file()), None)


def load_config(path: Path | None) -> Config:
    """Read a project file; without one, everything is at its default.

    Raises:
        UsageError: The file is not TOML, has unknown keys, or values that can't be.
    """
    if path is None:
        return Config()
    document = read_toml(path)
    if isinstance(document.get("recipe"), dict) and "by_step" in document["recipe"]:  # the name is ours alone
        hint = did_you_mean("by_step", _known(["recipe"]))
        raise UsageError(f"{path}: [recipe] key 'by_step' is unknown.", hint=hint)
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise _explained(path, error) from error
    check_recipe(path, config.recipe.pipeline, config.recipe.steps, config.recipe.by_step)
    config._path = path.resolve()
    return config


def _explained(path: Path, error: ValidationError) -> UsageError:
    """The first problem as one paragraph, and how many more there are."""
    problems = error.errors()
    first = problems[0]
    where = [str(part) for part in first["loc"] if part != "by_step"]
    others = len(problems) - 1
    more = f" ({others} more problem{'s' if others > 1 else ''})" if others else ""
    section = f"[{where[0]}] " if len(where) > 1 else ""
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(where[-1], _known(where[:-1]))
        return UsageError(f"{path}: {section}key {where[-1]!r} is unknown{more}.", hint=hint)
    kind = _EXPECTED.get(first["type"])
    what = f"expected {kind}" if kind else first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return UsageError(f"{path}: {section}needs a value for {where[-1]!r}{more}.")
    value = first["input"]
    told = (isinstance(value, Section | dict) and not kind) or (isinstance(value, str) and repr(value) in what)
    got = "" if told else f", got {_toml(value)}"
    return UsageError(f"{path}: {section}{'.'.join(where[1:]) or where[0]}: {what}{got}{more}.")


def _toml(value: object) -> str:
    """A value as the file may have it."""
    if isinstance(value, dict):
        return "a table"
    return str(value).lower() if isinstance(value, bool) else shortened(repr(value))


def _sections(hint: Any) -> Iterator[type[Section]]:
    """The sections that a field may hold."""
    if isinstance(hint, type) and issubclass(hint, Section):
        yield hint
    for argument in typing.get_args(hint):
        yield from _sections(argument)


def _known(where: list[str]) -> list[str]:
    """Keys of the section at a path."""
    section: type[Section] = Config
    for part in where:
        if not part.isdigit():  # a position in a list of tables
            section = next(_sections(section.model_fields[part].annotation))
    if section is RecipeSection:
        return ["seed", "pipeline", "steps", *STEPS.names()]
    return list(section.model_fields)
