"""The steps that a method is made of, for a target and a project's recipe tables. Imports no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, log1p
from typing import Any

from prunec.compiler.methods.method import Method
from prunec.compiler.pipeline.own_steps import DEFAULT_EPOCHS, step_kind, steps_of_recipe
from prunec.compiler.pipeline.pipeline import make_step
from prunec.compiler.pipeline.recipe import RecipeStep, underscored
from prunec.compiler.pipeline.step_kind import Tables
from prunec.passes.errors import UsageError
from prunec.passes.options import converted
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.ratios import exact
from prunec.runtime.target import Target

_PRETRAIN, _PRUNE, _PERMUTE, _MASK, _TRAIN = "pretrain", "prune-filters", "permute", "sparsify", "recover"
#: Share of the weights that is masked where nothing is asked for.
DEFAULT_SHARE = 0.5
#: What a number of levels may exceed a whole number by.
_NOISE = 1e-9
#: Options of the project's training that a regime takes over: those that any training can have.
_OF_EVERY_TRAINING = (
    *("batch_size", "optimizer", "momentum", "nesterov", "betas", "eps", "weight_decay", "decay_norms_and_biases"),
    *("clip_norm", "accumulate", "precision", "channels_last", "compile", "sync_batchnorm", "label_smoothing"),
)
_Options = Mapping[str, Any]


@dataclass(frozen=True)
class _Part:
    """A step of a pipeline: options of a method, which count before those of the project's table, and who decides."""

    name: str
    decided_by: str
    options: _Options = field(default_factory=dict)
    table: _Options = field(default_factory=dict)


def method_steps(method: Method, tables: Tables, target: Target, has_data: bool) -> list[RecipeStep]:
    """The steps of a recipe in which a method prunes.

    What the method is made of counts before the project's tables; whatever else these say stands, other steps too.

    Args:
        method: The method.
        tables: Options by step, of the project file with the flags of the command line laid over them; the ratio of a
            method that masks stands in the table of sparsify.
        target: The target: one that asks for 2:4 gets it behind pruned filters, and masks have its pattern.
        has_data: Whether there are labelled data, with which the network is retrained.

    Raises:
        UsageError: The method can't be for this target or number of epochs, or an option is impossible.
    """
    parts = _parts(method, {name: underscored(name, table) for name, table in tables.items()}, tables, target, has_data)
    return [_made(part, tables, target) for part in parts]


def _parts(
    method: Method, given: Mapping[str, _Options], tables: Tables, target: Target, has_data: bool
) -> Iterator[_Part]:
    """The parts in their order: those of the recipe, with the method's in place of its pruning and its retraining."""
    before, after = _epochs(method, given)
    first = given.get(_PRETRAIN, {}) if method.base == "random" else {}
    running = steps_of_recipe(tables, target, has_data)
    masks = _mask(method, given, target) if method.structure == "weights" else None
    for name, decided_by in running.items():
        table = given.get(name, {})
        if name == _PRETRAIN and method.base == "random":
            yield _Part(name, method.flag, {"epochs": 0, "schedule": "", "keep_step": 0}, table)
        elif name == _PRUNE:
            yield from _regime(method, before, given)
            if masks is None:
                _check_ratio(method, table)
                yield _Part(name, method.flag, _choice(method), table)
            elif _MASK not in running:
                yield from _levels(method, masks, after, given)
        elif name == _MASK and masks is not None:
            yield from _levels(method, masks, after, given)
        elif name == _PERMUTE and method.allocation == "joint":
            continue
        elif name != _TRAIN:
            yield _Part(name, decided_by, table=table)
        elif after and not method.level_share:
            own: dict[str, object] = {"epochs": after}
            if "schedule" in first and "schedule" not in table:
                own["schedule"] = first["schedule"]
            yield _Part(name, method.flag if method.hooks or first else decided_by, own, table)


def _epochs(method: Method, given: Mapping[str, _Options]) -> tuple[int, int]:
    """Epochs of the regime and of the retraining behind the pruning, which every level has.

    A method that is about random weights trains as long as the dense network is, where nothing else is asked for.
    """
    pretraining = {} if method.base == "trained" else given.get(_PRETRAIN, {})
    asked = given.get(_TRAIN, {}).get("epochs", pretraining.get("epochs") or DEFAULT_EPOCHS)
    epochs = int(asked) if str(asked).isdecimal() else DEFAULT_EPOCHS  # what is wrong shows where the step is made
    least = 2 if method.hooks else 1 if method.level_share else 0
    if epochs < least:
        trains = "before it prunes and after" if method.hooks else "in every level"
        raise UsageError(
            f"The method {method.name} trains {trains}, and {epochs} epochs are too few.",
            hint=f"Give --epochs {least} or more.",
        )
    before = min(max(1, round(method.regime_share * epochs)), epochs - 1) if method.hooks else 0
    return before, epochs - before


def _choice(method: Method) -> dict[str, object]:
    """What a method decides of prune-filters."""
    choice: dict[str, object] = {"criterion": method.criterion}
    choice |= {} if method.allocation == "auto" else {"allocation": method.allocation}
    choice |= {"depth": True} if method.depth else {}
    return choice | ({"samples": method.samples} if method.samples else {})


def _check_ratio(method: Method, table: _Options) -> None:
    """Refuse ratios by layer where the method chooses how much of each goes."""
    if method.allocation != "auto" and isinstance(table.get("ratio"), Mapping):
        raise UsageError(
            f"The method {method.name} chooses how many filters of each layer go (allocation={method.allocation}), and "
            "[recipe.prune-filters] has a ratio for some layers of their own.",
            hint="Give one ratio, as by --ratio 0.5, whose MACs it then chooses for, or take a method that prunes "
            "every layer by its ratio, such as l1.",
        )


def _regime(method: Method, epochs: int, given: Mapping[str, _Options]) -> Iterator[_Part]:
    if method.hooks:
        own = {"epochs": epochs, "schedule": method.regime_schedule, "hooks": method.hooks, "probe": 0, "keep": "last"}
        table = {name: value for name, value in given.get(_TRAIN, {}).items() if name in _OF_EVERY_TRAINING}
        yield _Part(_TRAIN, method.flag, own, table)


def _mask(method: Method, given: Mapping[str, _Options], target: Target) -> _Part:
    """The step that masks: by the target's pattern where it asks for one, which then gives the share too."""
    table, own = given.get(_MASK, {}), _choice(method)
    if not target.sparse:
        own |= {"pattern": method.pattern, "ratio": table.get("ratio", DEFAULT_SHARE)}
    elif "ratio" in table or method.level_share:
        what = "masks level by level" if method.level_share else "is given a ratio"
        raise UsageError(
            f"The method {method.name} {what}, and {target} asks for 2:4, which masks half of the weights at once.",
            hint=f"Compile for {target.device}-dense-{target.precision}"
            + ("." if method.level_share else ", or leave the ratio out."),
        )
    else:
        own = {"criterion": method.criterion, "pattern": TWO_FOUR}
    return _Part(_MASK, method.flag, own, table)


def _levels(method: Method, mask: _Part, epochs: int, given: Mapping[str, _Options]) -> Iterator[_Part]:
    """The step that masks; or the levels of it, each with its training, of which the last masks what is left to."""
    if not method.level_share:
        yield mask
        return
    table, own = given.get(_TRAIN, {}), dict[str, object](epochs=epochs)
    if method.level_schedule:
        own["schedule"] = method.level_schedule
    if method.base == "both" and not table.get("early"):
        if _PRETRAIN not in given:
            raise UsageError(
                f"The method {method.name} goes back to the weights of an early epoch, and no checkpoint of it is "
                "named.",
                hint='Name it in prunec.toml: early = "epoch10.pt" under [recipe.recover]; or have the dense network '
                "trained from its factory, by epochs and schedule under [recipe.pretrain].",
            )
        own["early"] = _PRETRAIN
    until = converted("sparsify: ratio", mask.options["ratio"], float)
    assert isinstance(until, float)
    count = max(1, ceil(log1p(-exact(until)) / log1p(-method.level_share) - _NOISE))
    options = {name: value for name, value in mask.options.items() if name != "ratio"}
    options |= {"ratio_of_rest": method.level_share, "until": until}
    masked = _Part(_MASK, method.flag, options, {k: v for k, v in mask.table.items() if k != "ratio"})
    for _ in range(count):
        yield from (masked, _Part(_TRAIN, method.flag, own, table))


def _made(part: _Part, tables: Tables, target: Target) -> RecipeStep:
    """A part as a step, with what decides the options that the project's table doesn't."""
    kind = step_kind(part.name)
    defaults = kind.defaults(target, tables)
    step = make_step(part.name, {**defaults, **part.table, **part.options})
    sources = {key: kind.default_sources.get(key, "default") for key in defaults if key not in part.table}
    return RecipeStep(step, part.decided_by, sources | dict.fromkeys(part.options, part.decided_by))
