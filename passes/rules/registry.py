"""The table of operator rules, and the one place that looks an operator up in it."""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.labels import Ties, Value

#: (ties, node, arguments by schema name) -> labels of the node's output
Rule = Callable[[Ties, Node, dict[str, Any]], Value]

_RULES: dict[str, Rule] = {}
#: Operators that make a tensor from sizes alone: their rules are asked although no input is labelled.
_CREATORS: set[str] = set()
_FAMILIES = (
    "attention",
    "convolution",
    "creation",
    "indexing",
    "joining",
    "normalisation",
    "pointwise",
    "pooling",
    "recurrent",
    "reductions",
    "reshaping",
    "views",
    "spatial",
)


def rule(*operators: str, creates: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators, named without namespace and overload ("conv2d").

    Args:
        operators: their names.
        creates: whether they make labels where no input has any.
    """

    def register(function: Rule) -> Rule:
        for operator in operators:
            if operator in _RULES:
                raise ValueError(f"two rules for {operator}")
            _RULES[operator] = function
        _CREATORS.update(operators if creates else ())
        return function

    return register


@cache
def _load_families() -> None:
    for family in _FAMILIES:
        importlib.import_module(f"prunec.passes.rules.{family}")


def creates(node: Node) -> bool:
    """Whether a call may yield labels although its inputs have none."""
    return operator_name(node.target) in _CREATORS


def find_rule(node: Node) -> Rule | None:
    """The rule for a call, or None: then everything the call touches is frozen."""
    _load_families()
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    found = _RULES.get(operator_name(target))
    if found is None and torch.Tag.pointwise in target.tags:
        from prunec.passes.rules.pointwise import broadcast

        return broadcast
    return found
