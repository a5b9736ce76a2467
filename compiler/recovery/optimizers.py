"""The optimizer of a training: its parameter groups, and the object that steps."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from prunec.compiler.recovery.attached_hooks import AttachedHooks
from prunec.compiler.recovery.optimizer_kinds import KINDS, OwnOptimizer
from prunec.compiler.recovery.recover_options import Recover
from prunec.passes.errors import UsageError
from prunec.passes.graphs import calls, operator_name, tensor_names
from prunec.passes.program import Program
from prunec.passes.user_calls import call_user_code

_Group = dict[str, Any]


def make_optimizer(program: Program, options: Recover, hooks: AttachedHooks) -> Optimizer:
    """An optimizer over the program's parameters and those that hooks give it, less those of the hooks' own optimizers.

    Learning rates are set before every step, times a group's ``learning_rate_factor`` where it has one.

    Args:
        program: The program to train.
        options: The recipe, with an optimizer that is chosen and its options filled in.
        hooks: The training hooks.

    Raises:
        UsageError: The user's function fails or gives something else than an optimizer over the groups, or a hook wants
            an option that the optimizer doesn't have.
    """
    groups = _groups(program, options, hooks)
    if isinstance(options.optimizer, OwnOptimizer):
        optimizer = _own(options.optimizer, groups)
    elif options.optimizer not in KINDS:
        raise UsageError(
            f"recover: the optimizer {options.optimizer} isn't loaded.",
            hint="Pass an OwnOptimizer; `prunec compile` loads it relative to the project file.",
        )
    else:
        kind = KINDS[options.optimizer]
        settings = {name: getattr(options, name) for name in kind.defaults}
        optimizer = getattr(torch.optim, kind.title)(groups, lr=1.0, **settings)
    unknown = {name for group in groups for name in group} - {"params", "learning_rate_factor", *optimizer.defaults}
    if unknown:
        raise UsageError(
            f"recover: a parameter group sets {sorted(unknown)[0]}, which {type(optimizer).__name__} doesn't have.",
            hint="Settings of groups come from training hooks and decay_norms_and_biases: leave that out, or take "
            "another optimizer.",
        )
    return optimizer


def take_step(step: Callable[[Optimizer], object], optimizer: Optimizer, options: Recover) -> None:
    """Let a function take an optimizer's step.

    Raises:
        InputError: The optimizer is the user's, and its step fails.
    """
    if not isinstance(options.optimizer, OwnOptimizer):
        step(optimizer)
        return
    hint = "Its step() is called without arguments when the gradients are there; a closure is not given."
    call_user_code(f"step of the optimizer {options.optimizer}", step, optimizer, code=optimizer, hint=hint)


def settings_text(optimizer: Optimizer) -> str:
    """An optimizer's class with the settings of its parameter groups, each once, but for their learning rates."""
    settings = [
        ", ".join(f"{name}={value!r}" for name, value in group.items() if name not in ("params", "lr"))
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__}({'; '.join(dict.fromkeys(settings))})"


def norms_and_biases(program: Program) -> list[nn.Parameter]:
    """The parameters that are usually not decayed: those of norms, and every other one of at most one dimension."""
    of_norms = {
        name
        for node in calls(program.graph)
        if "norm" in operator_name(node.target) and isinstance(node.target, torch._ops.OpOverload)
        for name in tensor_names(node, "weight", "bias")
    }
    return [p for name, p in program.parameters().items() if p.ndim <= 1 or name in of_norms]


def _groups(program: Program, options: Recover, hooks: AttachedHooks) -> list[_Group]:
    given = set(hooks.parameters().values())
    own = [p for p in program.module.parameters() if p.requires_grad and p not in given]
    spared = set() if options.decay_norms_and_biases else set(norms_and_biases(program))
    decayed, undecayed = [p for p in own if p not in spared], [p for p in own if p in spared]
    groups: list[_Group] = [{"params": decayed}] if decayed else []
    if undecayed:
        groups.append({"params": undecayed, "weight_decay": 0.0})
    for group in (group for attachment in hooks.attachments for group in attachment.parameters):
        settings = {name: getattr(group, name) for name in ("learning_rate_factor", "momentum", "weight_decay")}
        given_settings = {name: value for name, value in settings.items() if value is not None}
        groups.append({"params": list(group.parameters), **given_settings})
    return groups


def _own(own: OwnOptimizer, groups: list[_Group]) -> Optimizer:
    hint = "It is called with the list of parameter groups alone."
    optimizer = call_user_code(f"optimizer function {own}", own.make, [dict(group) for group in groups], hint=hint)
    if not isinstance(optimizer, Optimizer):
        got = type(optimizer).__name__
        raise UsageError(f"recover: the optimizer function {own} gave {got}; expected a torch.optim.Optimizer.")
    if not _steps_alone(optimizer):
        raise UsageError(
            f"recover: {type(optimizer).__name__} of {own} evaluates the loss itself, several times a step; expected "
            "an optimizer whose step() takes the gradients as they are."
        )
    _check_groups(own, groups, optimizer)
    return optimizer


def _steps_alone(optimizer: Optimizer) -> bool:
    """Whether ``step()`` can be called without arguments."""
    try:
        inspect.signature(optimizer.step).bind()
    except TypeError:
        return False
    return True


def _check_groups(own: OwnOptimizer, groups: list[_Group], optimizer: Optimizer) -> None:
    """Raise a `UsageError` where an optimizer doesn't hold each parameter once, with the settings of its group."""
    held = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    wanted = {parameter: group for group in groups for parameter in group["params"]}
    if held.keys() != wanted.keys():
        raise UsageError(
            f"recover: the optimizer of {own} holds {len(held.keys() & wanted.keys())} of the {len(wanted)} parameters "
            f"that it was given, and {len(held.keys() - wanted.keys())} others: expected exactly those.",
            hint="Pass on all groups that the function is called with.",
        )
    for parameter, group in wanted.items():
        for name, value in group.items():
            if name != "params" and held[parameter].get(name) != value:
                raise UsageError(
                    f"recover: the optimizer of {own} lost {name} = {value} of a parameter group.",
                    hint="Pass on the groups themselves, not their parameters.",
                )
