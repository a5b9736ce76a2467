"""Pipelines: the steps of a compile, as text and as objects.

``prune-filters{speedup=2.0,criterion=l1} sparsify recover{epochs=30,schedule="step:0=1e-2,10=1e-3"}``

The options of a step are the fields of its dataclass; hyphens in their names may stand for underscores. Export, build
and measure end every compile: they may be written, in this order, and need not be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from prunec.compiler.pipeline.own_steps import STEPS, TAIL, step_kind
from prunec.compiler.pipeline.step_kind import StepKind
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.notation import REPEAT, Item, parse_items, print_item
from prunec.passes.options import changed_options, converted, with_options

#: Steps that a pipeline may have, repeats expanded: beyond any use, and soon enough counted.
MAX_STEPS = 1000
_REPEAT_EXAMPLE = "For example repeat{n=3}(prune-filters{ratio=0.2})."


@dataclass(frozen=True)
class Step:
    """One step: the name of its kind (`STEPS`) and its options, an instance of the kind's class."""

    name: str
    options: Any

    def __post_init__(self) -> None:
        """Raise `UsageError` where there is no such step, or the options are of another class."""
        check_known(self.name)
        with STEPS.blame(self.name):
            expected = self.kind.options_class()
        if not isinstance(self.options, expected):
            raise UsageError(f"{self.name} takes options of {expected.__name__}, got {self.options!r}.")

    def __str__(self) -> str:
        return print_item(self.name, changed_options(self.options))

    @property
    def kind(self) -> StepKind:
        """The kind of the step."""
        return step_kind(self.name)


@dataclass(frozen=True)
class Repeat:
    """Some steps several times over, for iterative pruning."""

    n: int
    body: "tuple[Step | Repeat, ...]"

    def __post_init__(self) -> None:
        """Raise `UsageError` where no step is repeated, or less than once."""
        if type(self.n) is not int or self.n < 1:
            raise UsageError(f"repeat: n must be a whole number of at least 1, got {self.n!r}.")
        _check_items(self.body)
        if not self.body:
            raise UsageError("repeat has no steps.", hint=_REPEAT_EXAMPLE)

    def __str__(self) -> str:
        return f"{REPEAT}{{n={self.n}}}({' '.join(map(str, self.body))})"


@dataclass(frozen=True)
class Pipeline:
    """The steps of a compile between capture and export; ``parse_pipeline(str(p)) == p``, unless options hold objects
    of classes that aren't registered.

    Its steps can be read only where they stand in an order that makes sense.
    """

    items: tuple[Step | Repeat, ...] = ()

    def __post_init__(self) -> None:
        """Raise `UsageError` for what is no tuple of steps and repeats."""
        _check_items(self.items)

    def __str__(self) -> str:
        return " ".join(map(str, self.items))

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in the order in which they run, repeats expanded.

        Raises:
            UsageError: There are too many steps, or one stands where it must not; the message gives the reason.
        """
        steps = tuple(islice(_expand(self.items), MAX_STEPS + 1))
        if len(steps) > MAX_STEPS:
            raise UsageError(
                f"The pipeline has more than {MAX_STEPS} steps, repeats expanded.", hint="Repeat less often."
            )
        _check_order(steps)
        return steps

    @property
    def on_dense(self) -> tuple[Step, ...]:
        """The steps that are taken on the dense network: all but the one that makes it."""
        return tuple(step for step in self.steps if not step.kind.makes_dense)

    def of(self, kind: type[Any]) -> list[Any]:
        """The options of all steps whose options are of a class."""
        return [step.options for step in self.steps if isinstance(step.options, kind)]


def parse_pipeline(text: str) -> Pipeline:
    """Read a pipeline's text form.

    Raises:
        UsageError: The text is malformed, names an unknown step or option, gives an option a value that it can't
            have, or orders steps in a way that makes no sense.
        MissingDependencyError: A plug-in's step can't be imported.
    """
    items = list(parse_items(text))
    pipeline = Pipeline(tuple(_build(item) for item in items[: len(items) - _tail_length(items)]))
    _ = pipeline.steps  # refuses an order that makes no sense
    return pipeline


def make_step(name: str, options: Mapping[str, object]) -> Step:
    """A step from its name and its options as text or plain values.

    Raises:
        UsageError: The step or an option is unknown, or a value is impossible.
        MissingDependencyError: A plug-in's step can't be imported.
    """
    check_known(name)
    with STEPS.blame(name):
        return Step(name, with_options(step_kind(name).options_class(), name, options))


def check_known(name: str) -> None:
    """Raise `UsageError` where no step has this name."""
    if not isinstance(name, str) or name not in STEPS.names():
        raise UsageError(f"The pipeline has no step {name!r}.", hint=did_you_mean(str(name), [*STEPS.names(), REPEAT]))


def _check_items(items: object) -> None:
    if not isinstance(items, tuple) or not all(isinstance(item, Step | Repeat) for item in items):
        raise UsageError(
            f"A pipeline is made of a tuple of Step and Repeat objects, got {items!r}.",
            hint="parse_pipeline(text) reads text, make_step(name, options) makes a step.",
        )


def _check_order(steps: Sequence[Step]) -> None:
    names = [step.name for step in steps]
    if misplaced := [step.name for step in steps[1:] if step.kind.makes_dense]:
        raise UsageError(
            f"The pipeline has {misplaced[0]} after {names[0]}: it makes the network that all other steps work on.",
            hint=f"Put {misplaced[0]} first, once.",
        )
    for name in dict.fromkeys(names):
        for rule in step_kind(name).after:
            places = [position for position, other in enumerate(names) if other == rule.step]
            mine = [position for position, other in enumerate(names) if other == name]
            if places and places[-1] > (mine[-1] if rule.last else mine[0]):
                raise UsageError(
                    f"The pipeline has {rule.step} after {name}: {rule.reason}.", hint=f"Put {rule.step} before {name}."
                )


def _build(item: Item) -> Step | Repeat:
    if item.body is None:
        return make_step(item.name, item.options)
    if set(item.options) != {"n"}:
        raise UsageError("repeat takes one option, n.", hint=_REPEAT_EXAMPLE)
    count = converted("repeat: n", item.options["n"], int)
    assert isinstance(count, int)
    return Repeat(count, tuple(_build(child) for child in item.body))


def _tail_length(items: list[Item]) -> int:
    """Number of the last items that spell out the end of every compile."""
    names = [item.name for item in items]
    start = next((i for i, name in enumerate(names) if name in TAIL), len(names))
    if names[start:] != [name for name in TAIL if name in names]:
        raise UsageError(
            f"The pipeline ends in {' '.join(names[start:])}: export, build and measure come last, in this order.",
            hint="Leave them out: every compile ends with them.",
        )
    for item in items[start:]:
        if item.options:
            raise UsageError(f"{item.name} takes no options.")
    return len(items) - start


def _expand(items: tuple[Step | Repeat, ...]) -> Iterator[Step]:
    for item in items:
        if isinstance(item, Repeat):
            for _ in range(item.n):
                yield from _expand(item.body)
        else:
            yield item
