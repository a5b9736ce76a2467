"""The table of operator rules, which each family's module fills."""

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from prunec.passes.labels import Ties, Value

#: A function of ties, node and arguments by schema name that gives the labels of the node's output.
Rule = Callable[[Ties, Node, dict[str, Any]], Value]

RULES: dict[str, Rule] = {}
#: Operators that make axes from sizes alone, whose rules are asked although no input is labelled.
CREATORS: set[str] = set()


def rule(*operators: str, creates: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators, named without namespace and overload ("conv2d").

    Operators that make labels where no input has any are registered with ``creates``.

    Raises:
        ValueError: One of the operators has a rule already.
    """

    def register(function: Rule) -> Rule:
        for operator in operators:
            if operator in RULES:
                raise ValueError(f"There are two rules for {operator}.")
            RULES[operator] = function
        CREATORS.update(operators if creates else ())
        return function

    return register
