"""Kinds of steps: their options, their order, their place in recipes, and the functions that run them.

Imports nothing that is slow to load: kinds are read by the command line.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunec.runtime.target import Target

#: Data that a step looks at besides the network: nothing, inputs of the training data, or those with their labels.
Needs = Literal["nothing", "inputs", "labels"]
Tables = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class After:
    """A step that a kind of step must stand after, where a pipeline has both.

    Attributes:
        step: Name of the other step, every one of which stands before.
        reason: Why, as the end of a sentence.
        last: Whether only the last step of the kind must stand after it, so that earlier ones may stand anywhere.
    """

    step: str
    reason: str
    last: bool = False


def needs_nothing(_: Any) -> Needs:
    """The needs of a step that looks at the network alone."""
    return "nothing"


def needs_inputs(_: Any) -> Needs:
    """The needs of a step that looks at inputs of the training data."""
    return "inputs"


def needs_labels(_: Any) -> Needs:
    """The needs of a step that looks at labelled training data."""
    return "labels"


def no_defaults(_target: Target, _tables: Tables) -> Mapping[str, object]:
    """The defaults of a step whose recipe table has none but those of its options."""
    return {}


@dataclass(frozen=True)
class StepKind:
    """A kind of step.

    Attributes:
        name: Name in pipelines and recipe tables.
        options: ``module:Class`` of its options, a frozen dataclass that imports no torch.
        runs: ``module:function`` that runs it: (options, `StepInput`) -> `StepOutput`.
        summary: Description of the step's work for the help.
        after: Steps that it must stand after.
        needs: (options) -> what it looks at besides the network.
        accuracy: Label of an own step under which the report has the accuracy after it; empty where the step leaves
            the network's function as it was, or the report shall have it in the row of the step alone.
        measures_accuracy: Whether accuracy is measured after it.
        place: Name of the own step before which it stands in a pipeline that is made of recipe tables; empty for the
            end.
        defaults: (target, all tables) -> options that its recipe table has where it doesn't give them.
        default_sources: What decides such a default, where it isn't the step alone, by the option's name.
        makes_dense: Whether it makes the dense network that all others work on, as `pretrain` alone does: it stands
            first, once, and has no row of its own in reports.
    """

    name: str
    options: str
    runs: str
    summary: str
    after: tuple[After, ...] = ()
    needs: Callable[[Any], Needs] = needs_nothing
    accuracy: str = ""
    measures_accuracy: bool = False
    place: str = "recover"
    defaults: Callable[[Target, Tables], Mapping[str, object]] = no_defaults
    default_sources: Mapping[str, str] = field(default_factory=dict)
    makes_dense: bool = False

    def options_class(self) -> type[Any]:
        """The class of its options."""
        return _imported(self.options)  # type: ignore[no-any-return]

    def runner(self) -> Callable[..., Any]:
        """The function that runs it; importing it may load torch."""
        return _imported(self.runs)  # type: ignore[no-any-return]


def _imported(location: str) -> Any:
    module, _, name = location.partition(":")
    return getattr(importlib.import_module(module), name)
