"""The rule for a call: the one place that looks an operator up among the rules of all families."""

import importlib

import torch
from torch.fx import Node

from prunec.passes.graphs import operator_name
from prunec.passes.rules.pointwise import broadcast
from prunec.passes.rules.registry import CREATORS, RULES, Rule

#: Modules of rules; importing one registers its rules.
FAMILIES = (
    "attention", "convolution", "creation", "indexing", "joining", "normalisation", "pointwise", "recurrent",
    "reductions", "reshaping", "spatial", "views",
)  # fmt: skip
for family in FAMILIES:
    importlib.import_module(f"prunec.passes.rules.{family}")


def creates(node: Node) -> bool:
    """Whether a call may yield labels although its inputs have none."""
    return operator_name(node.target) in CREATORS


def find_rule(node: Node) -> Rule | None:
    """The rule for a call, or None: then everything that the call touches is frozen."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    return RULES.get(operator_name(target), broadcast if torch.Tag.pointwise in target.tags else None)
