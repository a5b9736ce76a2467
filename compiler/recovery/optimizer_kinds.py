"""Optimizers by name: the options that each has, and the rates that are usual with it. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prunec.passes.errors import UsageError, did_you_mean

#: The optimizer of a recipe that leaves the choice to `choose_optimizer`, and the schedule of one likewise.
AUTO = "auto"


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer of `torch.optim` that recipes name.

    Attributes:
        title: Name of its class, under which reports speak of it.
        defaults: Its options in a recipe with their defaults.
        usual_learning_rate: Highest learning rate that dense networks are trained with by it where nothing else is
            known: 0.1 for SGD with momentum (He et al., "Deep Residual Learning", 2016), 1e-3 for Adam and AdamW
            (Kingma and Ba, "Adam", 2015). Rates of optimizers with the same one mean the same.
    """

    title: str
    defaults: Mapping[str, Any]
    usual_learning_rate: float


_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}
KINDS = {
    "sgd": OptimizerKind("SGD", {"momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}, 0.1),
    "adam": OptimizerKind("Adam", {**_ADAM, "weight_decay": 0.0}, 1e-3),
    "adamw": OptimizerKind("AdamW", {**_ADAM, "weight_decay": 0.01}, 1e-3),
}
#: Options of a recipe that belong to the optimizer.
OPTIONS = ("momentum", "nesterov", "betas", "eps", "weight_decay")


@dataclass(frozen=True)
class OwnOptimizer:
    """An optimizer of the user's own.

    Attributes:
        reference: Its name in recipes and reports, ``module:callable``.
        make: Takes the parameter groups, a list of dictionaries as `torch.optim` has them, and returns an optimizer
            over them. The schedule sets their learning rates before every step.
    """

    reference: str
    make: Callable[..., Any]

    def __str__(self) -> str:
        return self.reference


@dataclass(frozen=True)
class OptimizerChoice:
    """The name of an optimizer, and in words for the report why it is this one; empty where the recipe names it."""

    optimizer: str
    reason: str


def check_optimizer(name: str) -> str:
    """The name itself, where it is that of an optimizer or of the form ``module:callable``.

    Raises:
        UsageError: It is neither.
    """
    module, colon, function = name.partition(":")
    is_reference = bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))
    if name not in KINDS and not is_reference:
        raise UsageError(
            f"The optimizer {name!r} is unknown.",
            hint=f"{did_you_mean(name, KINDS)} Any other is named as module:callable, such as torch.optim:RMSprop.",
        )
    return name


def choose_optimizer(dense: str | None) -> OptimizerChoice:
    """The default: the optimizer of the dense training, else SGD.

    Args:
        dense: The optimizer that the dense network was trained with, where it is known.
    """
    if dense is None:
        return OptimizerChoice("sgd", "nothing states which optimizer the dense network was trained with")
    return OptimizerChoice(dense, "the dense network was trained with it")


def optimizer_title(optimizer: str | OwnOptimizer) -> str:
    """The name under which reports speak of an optimizer."""
    kind = KINDS.get(str(optimizer))
    return str(optimizer) if kind is None else kind.title


def rates_mean_the_same(first: str, second: str) -> bool:
    """Whether a learning rate of one optimizer is a sensible one for the other."""
    if first in KINDS and second in KINDS:
        return KINDS[first].usual_learning_rate == KINDS[second].usual_learning_rate
    return first == second
