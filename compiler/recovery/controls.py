"""Networks for control arms: the pruned shapes with fresh weights, beside which a retraining means something."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from prunec.passes.applying import BranchesStayWarning, apply_plan
from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, calls, operator_name
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.user_calls import call_user_code


def reinitialised(
    module: nn.Module,
    plan: PruningPlan,
    seed: int,
    initialise: Callable[[nn.Module], None] | None = None,
    example: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
) -> nn.Module:
    """A copy of a dense network, pruned by the plan, with fresh random weights of its new shapes.

    Branches that the plan removes stay in it, with random weights too: they are to be removed from its program.

    It is initialised as a small dense network, since initialisation depends on the shapes (Liu et al., "Rethinking the
    Value of Network Pruning", ICLR 2019).

    Args:
        module: The dense network, as its factory builds it; it is not changed.
        plan: The plan of the pruning.
        seed: Seed of the weights.
        initialise: Draws the weights of the pruned network; by default every module's own ``reset_parameters()`` does.
        example: Positional inputs, with which `apply_plan` checks the network; without them nothing is checked.
        kwargs: Keyword inputs.

    Raises:
        InputError: The user's function fails.
        UnsupportedModelError: The plan can't be applied to the network's own code.
        UsageError: Some module has parameters of its own and no ``reset_parameters()``.
    """
    pruned = copy.deepcopy(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BranchesStayWarning)
        apply_plan(pruned, plan, example, kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if initialise is None:
            _reset(pruned)
        else:
            call_user_code("initialise function", initialise, pruned, hint="It is called with the pruned network.")
    return pruned


def _reset(module: nn.Module) -> None:
    for name, child in module.named_modules():
        reset = getattr(child, "reset_parameters", None)
        if callable(reset):
            reset()
        elif next(child.parameters(recurse=False), None) is not None:
            raise UsageError(
                f"The module {name or 'at the top'} ({type(child).__name__}) has parameters and no reset_parameters(), "
                "so that it can't be trained from scratch.",
                hint='Name a function that draws all weights: [model] initialise = "module:callable".',
            )


@torch.no_grad()
def reinitialised_program(program: Program, seed: int) -> Program:
    """A copy of a program with fresh random weights, where there is no module that could draw its own.

    Weights of two dimensions or more are drawn as PyTorch's layers draw them (Kaiming, uniform); norms become the
    identity, and every other vector 0.
    """
    clone = program.clone().eval()
    generator = torch.Generator().manual_seed(seed)
    ones = _scales(clone)
    for name, tensor in clone.tensors().items():
        if not tensor.is_floating_point():
            continue
        is_parameter = name in clone.parameters()
        if name in ones:
            tensor.fill_(1.0)
        elif is_parameter and tensor.ndim >= 2:
            nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
        elif is_parameter or name.endswith("running_mean"):
            tensor.zero_()
    return clone


def _scales(program: Program) -> set[str]:
    """Names of the tensors that norms multiply or divide by."""
    names = set()
    for node in calls(program.graph):
        if "norm" in operator_name(node.target) and isinstance(node.target, torch._ops.OpOverload):
            bound = arguments(node)
            sources = [bound.get("weight"), bound.get("running_var")]
            names |= {str(source.target) for source in sources if isinstance(source, Node) and source.op == "get_attr"}
    return names
