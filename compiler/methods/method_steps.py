"""The steps that a method is made of, for a target and a project's recipe tables. Imports no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, log1p
from typing import Any

from prunec.compiler.methods.method import Method
from prunec.compiler.pipeline.own_steps import CALIBRATE, DEFAULT_EPOCHS, step_kind
from prunec.compiler.pipeline.pipeline import make_step
from prunec.compiler.pipeline.recipe import RecipeStep, underscored
from prunec.compiler.pipeline.step_kind import Tables
from prunec.compiler.recovery.schedules import WEIGHT_REWINDING
from prunec.passes.allocation.goals import GOALS
from prunec.passes.errors import UsageError
from prunec.passes.ratios import exact
from prunec.runtime.target import Target

_PRUNE, _MASK, _TRAIN = "prune-filters", "sparsify", "recover"
_TWO_FOUR = "2:4"
#: Share of the weights that is masked where nothing is asked for.
DEFAULT_SHARE = 0.5
#: What a number of levels may exceed a whole number by.
_NOISE = 1e-9


@dataclass(frozen=True)
class _Part:
    """A step of a method: options that it sets, and tables of the project whose options may stand in their place."""

    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    table: Mapping[str, object] = field(default_factory=dict)


def method_steps(method: Method, tables: Tables, target: Target, has_data: bool) -> list[RecipeStep]:
    """The steps of a method.

    Options in the project's tables and flags go before those of the method, but for what makes its regime.

    Args:
        method: The method.
        tables: Options by step, of the project file with the flags of the command line laid over them.
        target: The target: one that asks for 2:4 gets it behind pruned filters, and masks have its pattern.
        has_data: Whether there are labelled data, with which the network is retrained.

    Raises:
        UsageError: The method can't be for this target or goal, or an option is impossible.
    """
    given = {name: underscored(name, table) for name, table in tables.items()}
    parts = _weight_parts(method, given, target) if method.structure == "weights" else _filter_parts(method, given)
    if method.structure == "filters" and target.sparse:
        parts += [_Part(name, table=given.get(name, {})) for name in ("permute", _MASK)]
    before, after = _epochs(method, given)
    steps = [*_regime(method, before, given), *parts]
    if method.level_share:
        steps = _levels(method, parts[0], after, given)
    elif has_data and after:
        steps.append(
            _Part(_TRAIN, {"epochs": after}, {k: v for k, v in given.get(_TRAIN, {}).items() if k != "epochs"})
        )
    if target.on_grids:
        steps.append(_Part(CALIBRATE, table=given.get(CALIBRATE, {})))
    return [_made(part, method, tables, target) for part in steps]


def _epochs(method: Method, given: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Epochs of the regime and of the retraining behind the pruning."""
    asked = given.get(_TRAIN, {}).get("epochs", DEFAULT_EPOCHS)
    epochs = int(asked) if str(asked).isdecimal() else DEFAULT_EPOCHS  # what is wrong shows where the step is made
    if not method.hooks:
        return 0, epochs
    if epochs < 2:
        raise UsageError(
            f"The method {method.name} trains before it prunes and after: {epochs} epochs can't be shared.",
            hint="Give --epochs 2 or more.",
        )
    before = min(max(1, round(method.regime_share * epochs)), epochs - 1)
    return before, epochs - before


def _regime(method: Method, epochs: int, given: Mapping[str, Mapping[str, object]]) -> Iterator[_Part]:
    if method.hooks:
        own = {"epochs": epochs, "schedule": method.regime_schedule, "hooks": method.hooks, "probe": 0, "keep": "last"}
        yield _Part(_TRAIN, own, {k: v for k, v in given.get(_TRAIN, {}).items() if k not in own})


def _levels(method: Method, mask: _Part, epochs: int, given: Mapping[str, Mapping[str, Any]]) -> list[_Part]:
    """The levels of iterative masking, each with its training; the last masks what is left of the share."""
    table = given.get(_TRAIN, {})
    own: dict[str, object] = {"epochs": epochs}
    if method.level_schedule:
        own["schedule"] = method.level_schedule
    if method.level_schedule == WEIGHT_REWINDING and not table.get("early"):
        raise UsageError(
            f"The method {method.name} goes back to the weights of an early epoch, and no checkpoint of it is named.",
            hint='Name it in prunec.toml: early = "epoch10.pt" under [recipe.recover].',
        )
    until = {**mask.options, **mask.table}.get("ratio", DEFAULT_SHARE)
    if not isinstance(until, int | float):
        raise UsageError(f"The method {method.name} masks one share, and the ratio is {until!r}.", hint="Say 0.9.")
    count = max(1, ceil(log1p(-exact(until)) / log1p(-method.level_share) - _NOISE))
    level = {"ratio_of_rest": method.level_share, "until": until}
    masked = replace(
        mask,
        options={**{k: v for k, v in mask.options.items() if k != "ratio"}, **level},
        table={k: v for k, v in mask.table.items() if k != "ratio"},
    )
    trained = _Part(_TRAIN, own, {k: v for k, v in table.items() if k not in own})
    return [masked, trained] * count


def _filter_parts(method: Method, given: Mapping[str, Mapping[str, object]]) -> list[_Part]:
    own = {"criterion": method.criterion, "allocation": method.allocation}
    return [_Part(_PRUNE, own, given.get(_PRUNE, {}))]


def _weight_parts(method: Method, given: Mapping[str, Mapping[str, object]], target: Target) -> list[_Part]:
    """The step that masks: by the target's pattern where it asks for one, which then gives the share too."""
    goals = given.get(_PRUNE, {})
    if other := [name for name in (*GOALS, "plan") if name in goals]:
        raise UsageError(
            f"The method {method.name} masks weights, and {other[0]} is asked for: no layer becomes smaller.",
            hint="Give --ratio, the share of the weights that is masked.",
        )
    own: dict[str, object] = {"criterion": method.criterion}
    if target.sparse:
        if "ratio" in goals:
            raise UsageError(
                f"{target} asks for 2:4, which masks half of the weights: a ratio is one too many.",
                hint=f"Leave it out, or compile for {target.device}-dense-{target.precision}.",
            )
        return [_Part(_MASK, own | {"pattern": _TWO_FOUR}, given.get(_MASK, {}))]
    own |= {"pattern": method.pattern, "ratio": goals.get("ratio", DEFAULT_SHARE)}
    own |= {} if method.allocation == "auto" else {"allocation": method.allocation}
    return [_Part(_MASK, own, given.get(_MASK, {}))]


def _made(part: _Part, method: Method, tables: Tables, target: Target) -> RecipeStep:
    defaults = step_kind(part.name).defaults(target, tables)
    source = f"--method {method.name}"
    step = make_step(part.name, {**defaults, **part.options, **part.table})
    sources = dict.fromkeys(defaults, "default") | dict.fromkeys(part.options, source)
    return RecipeStep(step, source, {key: told for key, told in sources.items() if key not in part.table})
