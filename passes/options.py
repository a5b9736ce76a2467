"""Frozen dataclasses whose fields are options, made from text and plain values, and back."""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from prunec.passes.errors import PrunecError, UsageError, did_you_mean
from prunec.passes.notation import Item, parse_items, print_item
from prunec.passes.plugins import Catalogue

#: Key of a field's metadata that tells the catalogue of the things which the field holds.
CATALOGUE = "catalogue"
#: Key that says whether it may hold several of them.
SEVERAL = "several"


def with_options(kind: type[Any], name: str, options: Mapping[str, object]) -> Any:
    """Make an instance of a dataclass from some of its fields; hyphens in their names may stand for underscores.

    Args:
        kind: The dataclass.
        name: Name of the thing in messages.
        options: Values by name, as text or as plain values of TOML or JSON; each is converted to its field's type.

    Raises:
        UsageError: An option is unknown or given twice, has an impossible value, or is missing and has no default.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, object] = {}
    for key, value in options.items():
        option = key.replace("-", "_")
        if option not in fields:
            raise UsageError(f"{name} has no option {key!r}.", hint=did_you_mean(option, fields) if fields else None)
        if option in values:
            raise UsageError(f"{name}: {option} is given twice, with hyphens and with underscores.")
        values[option] = converted(f"{name}: {key}", value, hints[option])
    missing = [n for n, f in fields.items() if n not in values and not _has_default(f)]
    if missing:
        raise UsageError(f"{name} needs a value for {missing[0]}.", hint=f"For example {name}{{{missing[0]}=...}}.")
    return kind(**values)


def changed_options(options: Any) -> dict[str, object]:
    """Options that differ from their defaults, and those that have none, in the order of the fields.

    Things with options of their own, alone or several, come as the text that names them. The field's metadata hold the
    catalogue of their names under `CATALOGUE`.

    Raises:
        UsageError: A value has no text form.
    """
    changed: dict[str, object] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not (_has_default(field) and getattr(value, "shape", ()) == () and value == _default(field)):
            where = f"{getattr(options, 'name', type(options).__name__)}: {field.name}"
            changed[field.name] = _plain(where, value, field.metadata.get(CATALOGUE))
    return changed


@dataclasses.dataclass(frozen=True)
class ResolvedOptions:
    """All options of a thing, those of things that it holds included, as plain values.

    Attributes:
        values: Values by name. A criterion stands under the name of its field, and its options behind a dot; where a
            field may hold several things they are numbered, ``hooks.0`` and ``hooks.0.rate``.
        places: Places in a comparison of runs that classes state for their options in a mapping ``places``.
    """

    values: Mapping[str, object]
    places: Mapping[str, str]


def resolved_options(options: Any) -> ResolvedOptions:
    """All options of a dataclass, with those of the criteria or hooks that it holds; "none" stands for None.

    A value that has no plain form stands as its text.
    """
    values: dict[str, object] = {}
    places = dict(getattr(options, "places", {}))
    for field in dataclasses.fields(options):
        value, catalogue = getattr(options, field.name), field.metadata.get(CATALOGUE)
        if catalogue is None:
            values[field.name] = _plain_or_text(value)
            continue
        things = _things(catalogue, value)
        several = field.metadata.get(SEVERAL, False)
        for number, thing in enumerate(things):
            name = f"{field.name}.{number}" if several else field.name
            held = resolved_options(thing)
            values |= {name: spelled_name(catalogue, thing), **{f"{name}.{key}": v for key, v in held.values.items()}}
            places |= {f"{name}.{key}": place for key, place in held.places.items()}
    return ResolvedOptions(values, places)


def _things(catalogue: Catalogue, value: object) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(named_thing(catalogue, item) for item in parse_items(value, catalogue.kind))
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _plain_or_text(value: object) -> object:
    if value is None:
        return "none"
    try:
        return _plain("", value)
    except UsageError:
        return str(value)


def named_text(catalogue: Catalogue | None, *things: Any) -> str:
    """``NAME{option=value} NAME2``: the text of named dataclasses with the options that differ from their defaults.

    Raises:
        UsageError: A name or a value has no text form.
    """
    return " ".join(print_item(spelled_name(catalogue, thing), changed_options(thing)) for thing in things)


def spelled_name(catalogue: Catalogue | None, thing: Any) -> str:
    """The name of a thing where the catalogue has its class under that name, else ``module:Class``."""
    kind = type(thing)
    if catalogue is not None and getattr(thing, "name", None) in catalogue.names():
        with contextlib.suppress(PrunecError):  # a name that several packages bring is nobody's
            if catalogue.load(thing.name) is kind:
                return str(thing.name)
    return f"{kind.__module__}:{kind.__qualname__}"


def named_thing(catalogue: Catalogue, item: Item) -> Any:
    """The thing that a text names, with its options.

    Raises:
        UsageError: There is no such thing or option, a value is impossible, or the text is that of an object of a class
            that isn't registered.
        MissingDependencyError: The package that brings it can't be imported.
    """
    if ":" in item.name:
        raise UsageError(
            f"The {catalogue.kind} {item.name} is an object of a class that isn't registered under its name: "
            "it can't be made from text.",
            hint=f"Give the object itself in Python, or register its class in the entry point group {catalogue.group}.",
        )
    kind = catalogue.load(item.name)
    if not (isinstance(kind, type) and is_frozen(kind)):
        raise UsageError(f"{item.name!r} is no {catalogue.kind}, but {kind!r}.", hint="Expected a frozen dataclass.")
    with catalogue.blame(item.name):
        return with_options(kind, f"{catalogue.kind} {item.name}", item.options)


def is_frozen(thing: Any) -> bool:
    """Whether a class, or that of an object, is a frozen dataclass: only the fields of one say all that it is."""
    return bool(getattr(getattr(thing, "__dataclass_params__", None), "frozen", False))


def _plain(where: str, value: Any, catalogue: Catalogue | None = None) -> object:
    """A value as text can hold it: NumPy's scalars as plain numbers, and things with options as the text of them."""
    things = value if isinstance(value, tuple) else (value,)
    if things and all(map(dataclasses.is_dataclass, things)):
        return named_text(catalogue, *things)
    if isinstance(value, Mapping):
        return {key: _plain(where, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(where, one) for one in value)
    scalar = value.item() if getattr(value, "shape", None) == () else value
    if type(scalar) not in (bool, int, float, str):
        raise UsageError(
            f"{where} is {value!r}, which has no text form.",
            hint="Recipes and reports hold true and false, numbers, text, and lists and tables of these.",
        )
    return scalar


def converted(where: str, value: object, hint: Any) -> object:
    """Convert text or a plain value to the type ``hint``; messages name the option ``where`` it stands.

    Raises:
        UsageError: The value can't be converted.
    """
    from pydantic import ConfigDict, TypeAdapter  # slow to load; making an option class known needs no values

    try:
        if isinstance(value, bool) and hint is not bool:  # pydantic would take true for 1
            raise ValueError("true and false are no numbers")
        # Types that pydantic doesn't know, such as a plug-in's protocol, are checked by isinstance.
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValueError as error:
        raise UsageError(f"{where} is {value!r}: expected {_expected(hint)}.") from error


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default(field: "dataclasses.Field[Any]") -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _expected(hint: Any) -> str:
    """The values that a type allows, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(a) for a in arguments if a is not type(None))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        return f"a list of {_expected(arguments[0])}, as in [a,b]"
    if origin is not None:
        return f'{_expected(arguments[1])} by glob, as in {{"layer*"=...}}'
    return {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )
