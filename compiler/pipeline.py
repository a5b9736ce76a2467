"""Pipelines: the steps of a compile, as text, as recipe tables, and as objects.

``prune-filters{speedup=2.0,criterion=l1} sparsify recover{epochs=30,schedule="step:0=1e-2,10=1e-3"}``

The options of a step are the fields of its dataclass; hyphens in their names may stand for underscores. Export, build
and measure end every compile: they may be written, in this order, and need not be.
"""

import dataclasses
import importlib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from pydantic import TypeAdapter

from prunec.compiler.order import check_order
from prunec.compiler.pipeline_text import REPEAT, Item, parse_items, print_item
from prunec.passes.errors import UsageError, did_you_mean
from prunec.runtime.target import Target

#: Name of a step -> "module:Class" of its options, a frozen dataclass.
REGISTRY: dict[str, str] = {
    "fold-parameters": "prunec.passes.fold:FoldParameters",
    "prune-filters": "prunec.passes.prune_filters:PruneFilters",
    "permute": "prunec.passes.permute:Permute",
    "sparsify": "prunec.passes.two_four:Sparsify",
    "re-estimate-batchnorm": "prunec.calibration.batchnorm:ReestimateBatchNorm",
    "recover": "prunec.compiler.recovery.options:Recover",
}
#: What every compile does after its steps.
TAIL = ("export", "build", "measure")
#: Steps that a pipeline may have, repeats expanded: beyond any use, and soon enough counted.
MAX_STEPS = 1000
#: Filters kept at least in every group where a recipe doesn't say otherwise.
MIN_CHANNELS = 8


@dataclass(frozen=True)
class Step:
    """One step: its name in `REGISTRY` and its options, an instance of the class named there."""

    name: str
    options: Any

    def __str__(self) -> str:
        return print_item(self.name, _changed(self.options))


@dataclass(frozen=True)
class Repeat:
    """Some steps several times over, for iterative pruning."""

    n: int
    body: "tuple[Step | Repeat, ...]"

    def __str__(self) -> str:
        return f"{REPEAT}{{n={self.n}}}({' '.join(map(str, self.body))})"


@dataclass(frozen=True)
class Pipeline:
    """What a compile does between capture and export; ``parse_pipeline(str(p)) == p``."""

    items: tuple[Step | Repeat, ...] = ()

    def __str__(self) -> str:
        return " ".join(map(str, self.items))

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in the order in which they run, repeats expanded."""
        return tuple(_expand(self.items))


def parse_pipeline(text: str) -> Pipeline:
    """Read a pipeline's text form.

    Raises:
        UsageError: the text is malformed, names an unknown step or option, gives an option a value that it can't
            have, or orders steps in a way that makes no sense.
    """
    items = list(parse_items(text))
    pipeline = Pipeline(tuple(_build(item) for item in items[: len(items) - _tail_length(items)]))
    if _count(pipeline.items) > MAX_STEPS:
        raise UsageError(f"The pipeline has more than {MAX_STEPS} steps, repeats expanded.", hint="Repeat less often.")
    check_order([step.name for step in pipeline.steps])
    return pipeline


def make_step(name: str, options: Mapping[str, object]) -> Step:
    """A step from its name and its options as text or plain values.

    Raises:
        UsageError: unknown step or option, or an impossible value.
    """
    _check_known(name)
    module, _, class_name = REGISTRY[name].partition(":")
    kind = getattr(importlib.import_module(module), class_name)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, object] = {}
    for key, value in options.items():
        option = key.replace("-", "_")
        if option not in fields:
            raise UsageError(f"{name} has no option {key!r}.", hint=did_you_mean(option, fields))
        if option in values:
            raise UsageError(f"{name}: {option} is given twice, with hyphens and with underscores.")
        values[option] = _converted(f"{name}: {key}", value, hints[option])
    missing = [n for n, f in fields.items() if n not in values and not _has_default(f)]
    if missing:
        raise UsageError(f"{name} needs a value for {missing[0]}.", hint=f"For example {name}{{{missing[0]}=...}}.")
    return Step(name, kind(**values))


def from_recipe(tables: Mapping[str, Mapping[str, object]], target: Target) -> Pipeline:
    """The pipeline that recipe tables ask for: prune filters, permute and sparsify to 2:4 for sparse targets, recover.

    Widths are rounded to the target's channel multiple, and at least `MIN_CHANNELS` filters kept per group, unless
    the table says otherwise. A step without a table is left out; permute and sparsify are there for every sparse
    target.

    Raises:
        UsageError: as `make_step`.
    """
    for name in tables:
        _check_known(name)
    steps = [make_step("fold-parameters", tables["fold-parameters"])] if "fold-parameters" in tables else []
    if "prune-filters" in tables:
        options = {key.replace("-", "_"): value for key, value in tables["prune-filters"].items()}
        defaults = {"round_to": target.channel_multiple, "min_channels": MIN_CHANNELS}
        steps.append(make_step("prune-filters", {**options, **{k: v for k, v in defaults.items() if k not in options}}))
    # Checked for every target. What stays dense gains nothing by an order.
    sparsify = make_step("sparsify", tables.get("sparsify", {}))
    dense = {"ignore": sparsify.options.ignore} if sparsify.options.ignore else {}
    permute = make_step("permute", {**dense, **tables.get("permute", {})})
    if target.sparse:
        steps += [permute, sparsify]
    steps += [make_step(name, tables[name]) for name in ("re-estimate-batchnorm", "recover") if name in tables]
    return Pipeline(tuple(steps))


def default_recipe(has_data: bool) -> dict[str, dict[str, Any]]:
    """Tables of the recipe where none is given: half the MACs, and a recovery finetune where there are data for it."""
    tables: dict[str, dict[str, Any]] = {"prune-filters": {"speedup": 2.0}}
    return {**tables, "recover": {"epochs": 20}} if has_data else tables


def _check_known(name: str) -> None:
    if name not in REGISTRY:
        raise UsageError(f"The pipeline has no step {name!r}.", hint=did_you_mean(name, [*REGISTRY, REPEAT]))


def _build(item: Item) -> Step | Repeat:
    if item.body is None:
        return make_step(item.name, item.options)
    if set(item.options) != {"n"}:
        raise UsageError("repeat takes one option, n.", hint="For example repeat{n=3}(prune-filters{ratio=0.2}).")
    count = _converted("repeat: n", item.options["n"], int)
    if not isinstance(count, int) or count < 1:
        raise UsageError(f"repeat: n must be at least 1, got {count}.")
    if not item.body:
        raise UsageError("repeat has no steps.", hint="For example repeat{n=3}(prune-filters{ratio=0.2}).")
    return Repeat(count, tuple(_build(child) for child in item.body))


def _tail_length(items: list[Item]) -> int:
    """How many of the last items spell out the end of every compile."""
    names = [item.name for item in items]
    start = next((i for i, name in enumerate(names) if name in TAIL), len(names))
    written = items[start:]
    expected = [name for name in TAIL if name in names]
    if names[start:] != expected:
        raise UsageError(
            f"The pipeline ends in {' '.join(names[start:])}: export, build and measure come last, in this order.",
            hint="Leave them out: every compile ends with them.",
        )
    for item in written:
        if item.options:
            raise UsageError(f"{item.name} takes no options.")
    return len(written)


def _expand(items: tuple[Step | Repeat, ...]) -> Iterator[Step]:
    for item in items:
        if isinstance(item, Repeat):
            for _ in range(item.n):
                yield from _expand(item.body)
        else:
            yield item


def _count(items: tuple[Step | Repeat, ...]) -> int:
    """How many steps `_expand` would give."""
    return sum(item.n * _count(item.body) if isinstance(item, Repeat) else 1 for item in items)


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _changed(options: Any) -> dict[str, object]:
    """Options that differ from their defaults, and those that have none, in the order of the fields."""
    values = {f.name: (f, getattr(options, f.name)) for f in dataclasses.fields(options)}
    return {name: value for name, (f, value) in values.items() if not _has_default(f) or value != f.default}


def _converted(where: str, value: object, hint: Any) -> object:
    try:
        if isinstance(value, bool) and hint is not bool:  # in a recipe table; pydantic would take it for 0 or 1
            raise ValueError("true and false are no numbers")
        return TypeAdapter(hint).validate_python(value)
    except ValueError as error:
        raise UsageError(f"{where} is {value!r}: expected {_expected(hint)}.") from error


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
    return {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(hint, str(hint))
