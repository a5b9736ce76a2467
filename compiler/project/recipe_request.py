"""The recipe that a project file and the command line ask for together, with where each value is from.

Imports no torch: what is wrong with a recipe shows before anything slow is loaded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from prunec.compiler.methods.catalogue import method_of
from prunec.compiler.methods.method_steps import method_steps
from prunec.compiler.pipeline.own_steps import CALIBRATE, DEFAULT_EPOCHS, DEFAULT_SPEEDUP
from prunec.compiler.pipeline.pipeline import Pipeline, Step, parse_pipeline
from prunec.compiler.pipeline.recipe import LISTED, RecipeStep, recipe_steps
from prunec.compiler.project.config import Config
from prunec.compiler.recovery.optimizer_kinds import AUTO
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.passes.allocation.goals import GOALS
from prunec.passes.errors import UsageError
from prunec.passes.options import changed_options, resolved_options
from prunec.runtime.target import Target

_DEFAULTS = {
    "prune-filters": f"filters are pruned by default (speedup={DEFAULT_SPEEDUP})",
    "recover": f"the network is retrained by default (epochs={DEFAULT_EPOCHS})",
}


#: The flag that makes a pipeline of a method, with which what decides its steps begins.
METHOD_FLAG = "--method"
#: Options of prune-filters that exclude each other as flags.
_EXCLUDING = (*product(GOALS, ("ratio", "plan")), ("ratio", "plan"))


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe's options on the command line; None leaves an option to the project file.

    Attributes:
        pipeline: The whole pipeline as text.
        method: Name of a published method, which the pipeline is made of.
        speedup: A goal, as the following ones: dense over compiled MACs, at least.
        latency_speedup: Dense over compiled latency, at least.
        latency_ms: Milliseconds of one inference, at most.
        parameters: Number of trained scalars, at most.
        size_mb: Megabytes of the trained scalars in float32, at most.
        ratio: Fraction of filters to remove in every group.
        plan: Path of a pruning plan to apply in place of a choice.
        epochs: Length of the recovery finetune; 0 leaves it out.
        seed: Seed of every random choice.
    """

    pipeline: str | None = None
    method: str | None = None
    speedup: float | None = None
    latency_speedup: float | None = None
    latency_ms: float | None = None
    parameters: int | None = None
    size_mb: float | None = None
    ratio: float | None = None
    plan: str | None = None
    epochs: int | None = None
    seed: int | None = None

    @property
    def flags(self) -> dict[str, tuple[str, object]]:
        """The step and the value of each flag that was given and sets an option of a step, by the option's name."""
        steps = {**dict.fromkeys((*GOALS, "ratio", "plan"), "prune-filters"), "epochs": "recover"}
        given = {name: (step, getattr(self, name)) for name, step in steps.items()}
        return {name: (step, value) for name, (step, value) in given.items() if value is not None}


@dataclass(frozen=True)
class RecipeRow:
    """One value of a resolved recipe: the option of a step, or the step itself where the option is empty."""

    step: str
    option: str
    value: str
    source: str


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with nothing left open: its pipeline, its seed, where each value is from, and remarks for the user."""

    pipeline: Pipeline
    seed: int
    rows: tuple[RecipeRow, ...]
    notes: tuple[str, ...]


def resolve_recipe(config: Config, options: RecipeOptions, target: Target) -> ResolvedRecipe:
    """The recipe that the project file and the command line ask for.

    Raises:
        UsageError: They contradict each other, or there can be no such pipeline.
    """
    recipe, places = config.recipe, _Places(config.path)
    seed = recipe.seed if options.seed is None else options.seed
    seed_source = places.of("recipe", "seed") or "default" if options.seed is None else "--seed"
    rows = [RecipeRow("", "seed", str(seed), seed_source)]
    text = options.pipeline if options.pipeline is not None else recipe.pipeline
    if text is not None:
        if options.method is not None:
            raise UsageError(
                f"--method {options.method} makes a pipeline, and one is given as text.",
                hint="Leave out one of the two.",
            )
        _refuse_overrides(options)
        pipeline, notes = parse_pipeline(text), _overridden(config, options, target)
        source = places.of("recipe", "pipeline") if options.pipeline is None else "--pipeline"
        for step in pipeline.steps:
            rows += _rows(step, source, dict.fromkeys(changed_options(step.options), source))
    else:
        steps = _composed(config, options, target)
        pipeline, notes = Pipeline(tuple(each.step for each in steps)), _notes(config, options, steps)
        for each in steps:
            rows += _rows(each.step, _decided_by(each, places), _sources(each, config, options, places))
        rows += _idle(config, steps, target)
    names = [step.name for step in pipeline.steps]  # refuses an order that makes no sense
    if target.sparse and "sparsify" not in names:
        raise UsageError(
            f"Target {target} asks for 2:4, and the pipeline has no sparsify.",
            hint=f"Add sparsify to it, or compile for {target.device}-dense-{target.precision}.",
        )
    return ResolvedRecipe(pipeline, seed, tuple(rows), notes)


class _Places:
    """Lines of a project file, for people: where none can be told for sure, the table's name stands."""

    def __init__(self, path: Path | None) -> None:
        self._name = "" if path is None else path.name
        self._lines = [] if path is None else path.read_text(encoding="utf-8").splitlines()

    def of(self, table: str, key: str = "") -> str:
        """Place of a table, or of a key in it; empty where the file has neither."""
        current, of_key, header = "", [], []
        for number, line in enumerate(self._lines, start=1):
            if match := re.match(r"\s*\[\s*([\w.\-\"' ]+?)\s*\]", line):
                current = re.sub(r"[\"' ]", "", match[1])
                header += [number] if current == table else []
            elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line.replace("-", "_")):
                of_key.append(number)
        lines = of_key if key else header
        if len(lines) == 1:
            return f"{self._name} line {lines[0]}"
        return f"{self._name} [{table}]" if header else ""


def _flag(option: str) -> str:
    """The flag of an option, as it is spelled on the command line."""
    return f"--{option.replace('_', '-')}"


def _composed(config: Config, options: RecipeOptions, target: Target) -> list[RecipeStep]:
    for first, second in _EXCLUDING:
        if first in options.flags and second in options.flags:
            raise UsageError(f"{_flag(first)} and {_flag(second)} exclude each other.", hint="Give one of the two.")
    listed, tables = config.recipe.steps, {name: dict(table) for name, table in config.recipe.by_step.items()}
    method = None if options.method is None else method_of(options.method)
    for name, (default_step, value) in options.flags.items():
        if (default_step, value) == ("recover", 0) and method is None:
            continue
        step = default_step if method is None or default_step != "prune-filters" else method.step_of(name)
        if listed is not None and step not in listed:
            raise UsageError(
                f"{_flag(name)} is for {step}, which {LISTED} of {config.path} leaves out.", hint=f"Add {step!r} to it."
            )
        _lay_over(tables.setdefault(step, {}), name, value)
    if method is None:
        steps = recipe_steps(tables, target, config.data is not None, listed)
    elif listed is None:
        steps = method_steps(method, tables, target, config.data is not None)
    else:
        raise UsageError(
            f"{method.flag} says which steps run, and so does {LISTED} of {config.path}.",
            hint="Leave out one of the two.",
        )
    _check_schedules(config, steps)
    return [each for each in steps if options.epochs != 0 or each.step.name != "recover"]


def _check_schedules(config: Config, steps: list[RecipeStep]) -> None:
    """Refuse a schedule that can't be read or doesn't fit the dense training, also where --epochs 0 leaves it out."""
    dense = config.model.pretraining
    original = None if dense is None else dense.learning_rates()
    for options in (each.step.options for each in steps):
        if isinstance(options, Pretrain):
            original = options.learning_rates
        if isinstance(options, Recover) and options.schedule != AUTO:
            parse_schedule(options.schedule, epochs=options.epochs, original=original)


def _lay_over(table: dict[str, Any], name: str, value: object) -> None:
    """Give a table an option of the command line, in the place of those that it excludes."""
    of_goals = (*GOALS, "allocation", "depth")
    excluded = {"ratio": ("plan", *of_goals), "plan": ("ratio", *of_goals)} | dict.fromkeys(GOALS, ("ratio", "plan"))
    for option in excluded.get(name, ()):
        table.pop(option, None)
    table[name] = value


def _refuse_overrides(options: RecipeOptions) -> None:
    for name in options.flags:
        raise UsageError(
            f"{_flag(name)} changes the recipe's tables, but here a pipeline in text form says what is done.",
            hint=f"Write it into the pipeline instead of giving {_flag(name)}.",
        )


def _overridden(config: Config, options: RecipeOptions, target: Target) -> tuple[str, ...]:
    """One line where --pipeline takes the place of a file's recipe, which is read all the same: a mistake shows."""
    recipe = config.recipe
    if options.pipeline is None:
        return ()
    if recipe.pipeline is not None:
        parse_pipeline(recipe.pipeline)
    _composed(config, RecipeOptions(), target)
    names = [LISTED] * (recipe.steps is not None) + [f"[recipe.{name}]" for name in recipe.by_step]
    what = " and ".join(names)
    return (f"--pipeline says what is done: {what} of {config.path} count for nothing.",) if names else ()


def _notes(config: Config, options: RecipeOptions, steps: list[RecipeStep]) -> tuple[str, ...]:
    """One line where a file has tables of other steps and doesn't list the steps: some run that it doesn't name."""
    tables = config.recipe.by_step
    asked = {step for step, _ in options.flags.values()}
    unnamed = [each.step.name for each in steps if each.decided_by == "default" and each.step.name not in asked]
    unnamed = [name for name in unnamed if name not in tables]
    if not tables or config.recipe.steps is not None or not unnamed:
        return ()
    others = ", ".join(f'"{each.step.name}"' for each in steps if each.step.name not in unnamed)
    missing = " and ".join(f"[recipe.{name}]" for name in unnamed)
    what = " and ".join(_DEFAULTS[name] for name in unnamed)
    idle = " or ".join(f"[recipe.{name}]" for name in _idle_tables(config, steps))
    without = f", and no {idle}" if idle else ""
    advice = f"For the others alone: steps = [{others}] under [recipe]{without}."
    return (f"{config.path} has no {missing}: {what}. {advice}",)


def _decided_by(each: RecipeStep, places: _Places) -> str:
    if each.decided_by == LISTED:
        return places.of("recipe", "steps")
    if each.decided_by in ("default", "target") or each.decided_by.startswith(METHOD_FLAG):
        return each.decided_by
    return places.of(f"recipe.{each.step.name}") or "the command line"


def _sources(each: RecipeStep, config: Config, options: RecipeOptions, places: _Places) -> dict[str, str]:
    """What decides the options of a step that aren't at the defaults of their class."""
    name = each.step.name
    flags = {key: _flag(key) for key, (step, _) in options.flags.items() if step == name}
    table = [key.replace("-", "_") for key in config.recipe.by_step.get(name, {})]
    given = {key: places.of(f"recipe.{name}", key) or f"[recipe.{name}]" for key in table}
    return {**given, **each.defaults, **flags}


def _rows(step: Step, decided_by: str, sources: Mapping[str, str]) -> list[RecipeRow]:
    values = resolved_options(step.options).values
    return [RecipeRow(step.name, "", "runs", decided_by)] + [
        RecipeRow(step.name, key, str(value), sources.get(key.partition(".")[0], "default"))
        for key, value in values.items()
    ]


def _idle(config: Config, steps: list[RecipeStep], target: Target) -> list[RecipeRow]:
    """Tables of steps that don't run on this target."""
    why = {"recover": "--epochs 0", "prune-filters": "the method masks weights"}
    why |= {CALIBRATE: f"{target} is no target of INT8, FP8 or INT4"}
    return [
        RecipeRow(name, "", "doesn't run", why.get(name, f"{target} asks for no 2:4"))
        for name in _idle_tables(config, steps)
    ]


def _idle_tables(config: Config, steps: list[RecipeStep]) -> list[str]:
    running = {each.step.name for each in steps}
    return [name for name in config.recipe.by_step if name not in running]
