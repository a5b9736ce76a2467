"""Nulls of report.json: in memory `Unknown` values with their reason, in the file nulls explained under `reasons`.

A key of `reasons` is the dotted path of a null, or of a part of the report of which nothing is known; ``*`` stands for
any row of a table (``layers.*.dense_ms``). Names that aren't plain words stand in quotes, as strings of JSON
(``extensions.meter.watts."layer1.0"``).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_origin

from pydantic import BaseModel, PlainSerializer
from pydantic_core import core_schema

from prunec.passes.unknown import Unknown

Value = TypeVar("Value")
Path = tuple[str, ...]

#: Stands in fields that the prunec that wrote a report didn't have yet.
NOT_RECORDED = Unknown("the prunec that wrote this report did not record it.")
#: Tables whose rows share their reasons.
_TABLES = ("layers", "steps")
_WORD = re.compile(r"[\w-]+")
_STEP = re.compile(r'"(?:[^"\\]|\\.)*"|[^.]+')


class _AsNull:
    """The schema of `Unknown` for pydantic: a value of its own in memory, null in JSON."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        null = core_schema.plain_serializer_function_ser_schema(lambda value: None)
        return core_schema.is_instance_schema(Unknown, serialization=null)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, str]:
        return {"type": "null"}


#: A value that may be unknown.
Maybe: TypeAlias = Value | Annotated[Unknown, _AsNull]


def _nulled(value: Any) -> Any:
    """Figures as JSON has them: null for what is not known."""
    if isinstance(value, Mapping):
        return {key: _nulled(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_nulled(child) for child in value]
    return None if isinstance(value, Unknown) else value


#: Figures of a plug-in by name: plain values, tables and lists of them (`prunec.passes.figures`), all perhaps unknown.
Figures: TypeAlias = Annotated[dict[str, Any], PlainSerializer(_nulled, when_used="json")]


@dataclass(frozen=True)
class NullMeans:
    """Marks a field in which null is an answer in itself and needs no reason."""

    meaning: str


def reasons_of(report: BaseModel) -> dict[str, str]:
    """The reasons of everything that a report doesn't know, by dotted path, sorted."""
    by_kind: dict[str, dict[str, str]] = {}
    for path, unknown in unknowns(report):
        kind = ".".join("*" if path[0] in _TABLES and step.isdigit() else step for step in path)
        by_kind.setdefault(kind, {})[".".join(path)] = unknown.reason
    result: dict[str, str] = {}
    for kind, reasons in by_kind.items():
        # Below rows of which nothing is known, a key for all rows would replace the reason of those.
        is_below = any(kind.startswith(f"{other}.") for other in by_kind)
        is_common = len(set(reasons.values())) == 1 and not is_below
        result |= {kind: next(iter(reasons.values()))} if is_common else reasons
    return dict(sorted(result.items()))


def unknowns(value: object, path: Path = ()) -> Iterator[tuple[Path, Unknown]]:
    """The unknowns below a value with their paths; a part that is wholly unknown, for one reason, comes once."""
    if isinstance(value, Unknown):
        yield path, value
    elif isinstance(value, tuple | list):
        for index, child in enumerate(value):
            yield from unknowns(child, (*path, str(index)))
    elif isinstance(value, Mapping):
        for name, child in value.items():
            yield from unknowns(child, (*path, _step(name)))
    elif isinstance(value, BaseModel):
        open_fields = [getattr(value, entry.name) for entry in _fields(type(value)) if entry.may_be_unknown]
        reasons = {child.reason if isinstance(child, Unknown) else None for child in open_fields}
        is_blank = bool(path) and len(open_fields) > 1 and len(reasons) == 1 and None not in reasons
        if is_blank:
            yield path, open_fields[0]
        for entry in _fields(type(value)):
            if not (is_blank and entry.may_be_unknown):
                yield from unknowns(getattr(value, entry.name), (*path, entry.name))


def with_unknowns(kind: type[BaseModel], document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of report.json with its nulls as `Unknown` values, and without `reasons`.

    Raises:
        ValueError: A null has no reason, or a reason is for something that is known.
    """
    content = {key: value for key, value in document.items() if key != "reasons"}
    reader = _Reader(dict(document["reasons"]))
    result = reader.read(kind, content, ())
    if reader.unexplained:
        raise ValueError(f"null without an entry in reasons: {', '.join(reader.unexplained)}")
    idle = [key for key in reader.reasons if "*" not in key and key not in reader.used]
    if idle:
        raise ValueError(f"reasons for fields that are not null: {', '.join(idle)}")
    return result


def covers(key: str, path: Path) -> bool:
    """Whether `key` is `path` or a prefix of it; ``*`` in `key` stands for any index of a list."""
    parts = steps_of(key)
    return len(parts) <= len(path) and all(
        part == step or (part == "*" and step.isdigit()) for part, step in zip(parts, path, strict=False)
    )


def steps_of(key: str) -> Path:
    """A dotted path in its steps, quotes kept."""
    return tuple(_STEP.findall(key))


def _step(name: str) -> str:
    """A name as a step of a dotted path."""
    return name if _WORD.fullmatch(name) else json.dumps(name, ensure_ascii=False)


@dataclass
class _Reader:
    """Walks a document along the fields of its model, and keeps count of the reasons it needs."""

    reasons: Mapping[str, str]
    used: set[str] = field(default_factory=set)
    unexplained: list[str] = field(default_factory=list)

    def read(self, kind: type[BaseModel], document: Mapping[str, Any], path: Path) -> dict[str, Any]:
        result = dict(document)
        for entry in _fields(kind):
            value, here = document.get(entry.name), (*path, entry.name)
            explains_itself = entry.may_be_none and bool(document.get("reason"))
            if entry.name not in document:
                result |= {entry.name: None} if explains_itself and entry.may_be_unknown else {}
            elif value is None:
                result[entry.name] = self._null(entry, here, explains_itself)
            elif entry.holds_figures:
                result[entry.name] = self._figures(value, here)
            elif entry.part is not None:
                result[entry.name] = self._below(entry.part, value, here)
        return result

    def _below(self, part: type[BaseModel], value: object, path: Path) -> object:
        if isinstance(value, Mapping):
            return self.read(part, value, path)
        if isinstance(value, list | tuple):
            return [self._below(part, child, (*path, str(index))) for index, child in enumerate(value)]
        return value

    def _figures(self, value: object, path: Path) -> object:
        if isinstance(value, Mapping):
            return {name: self._figures(child, (*path, _step(name))) for name, child in value.items()}
        if isinstance(value, list):
            return [self._figures(child, (*path, str(index))) for index, child in enumerate(value)]
        return self._null(_FIGURE, path, False) if value is None else value

    def _null(self, entry: "_Field", path: Path, explains_itself: bool) -> Unknown | None:
        """The `Unknown` of a null; a part with a reason of its own explains the nulls beside it."""
        covering = [key for key in self.reasons if entry.may_be_unknown and covers(key, path)]
        self.used.update(covering)
        if covering and not explains_itself:
            return Unknown(self.reasons[max(covering, key=lambda key: len(steps_of(key)))])
        if not entry.may_be_none:
            self.unexplained.append(".".join(path))
        return None


@dataclass(frozen=True)
class _Field:
    """A field of a model: what stands for an absent value, and the model of what is below it."""

    name: str
    may_be_unknown: bool
    may_be_none: bool
    part: type[BaseModel] | None = None
    holds_figures: bool = False


_FIGURE = _Field("", may_be_unknown=True, may_be_none=False)


@cache
def _fields(kind: type[BaseModel]) -> tuple[_Field, ...]:
    return tuple(
        _Field(
            name=name,
            may_be_unknown=Unknown in _members(info.annotation),
            may_be_none=type(None) in _members(info.annotation),
            part=next((t for t in _members(info.annotation, deep=True) if _is_model(t)), None),
            holds_figures=Any in _members(info.annotation, deep=True),
        )
        for name, info in kind.model_fields.items()
    )


def _members(annotation: Any, deep: bool = False) -> list[Any]:
    """The types of a union, or with ``deep`` also those of the elements of tuples."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if not arguments or (origin is tuple and not deep):
        return [annotation]
    chosen = arguments[:1] if origin is Annotated else arguments
    return [member for argument in chosen for member in _members(argument, deep)]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
