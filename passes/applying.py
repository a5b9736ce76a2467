"""A plan on the user's own module, checked side by side with the pruned program."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.errors import InputError, UnsupportedModelError, first_line
from prunec.passes.fold import FoldParameters
from prunec.passes.frontend import capture
from prunec.passes.own_layers import shrink
from prunec.passes.own_sizes import Attributes, Trials, set_attributes
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program

#: Passes that rewrite a network's graph, by name.
_REWRITING = {FoldParameters.name: FoldParameters()}


class NotCheckedWarning(UserWarning):
    """The warning that a plan was applied to a module and nothing was checked."""


class SizesInCodeWarning(NotCheckedWarning):
    """The warning that some modules' own Python code holds sizes that a plan changes."""


@dataclass(frozen=True)
class AppliedPlan:
    """What `apply_plan` did besides slicing tensors and correcting the sizes of torch's layers.

    Attributes:
        checked: Whether the module was compared with the pruned program.
        attributes: Attributes of the user's modules that hold pruned widths and were set to the new ones, with the
            values before and after: ``{"encoder.0.attention.head_dim": (64, 32)}``. Of tensors the shapes stand there.
    """

    checked: bool
    attributes: dict[str, tuple[Any, Any]]


def apply_plan(
    module: nn.Module, plan: PruningPlan, example: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None
) -> AppliedPlan:
    """Prune the user's own module in place: slice its tensors and correct its modules' sizes.

    With an example the module is run side by side with the pruned program, in float64 and on copies, with constant
    parameters (fresh gains and biases) drawn at random, which hide errors. Widths that stand in attributes of the
    user's modules (``self.head_dim``) are set to the new ones where that makes both equal. Where nothing does, the
    module is left as it was. Without an example nothing is checked, and a warning says so.

    Args:
        module: A module of the class that the plan was made for; its weights may differ.
        plan: A plan that `PruneFilters` returned.
        example: Positional inputs of the module.
        kwargs: Keyword inputs of the module.

    Raises:
        InputError: The plan names tensors or indices that the module doesn't have, or the module can't be copied.
        UnsupportedModelError: Module and program differ: the operator and the line of the user's code are named.
    """
    if example is None and kwargs is None:
        shrink(module, plan)
        _warn(module, plan)
        return AppliedPlan(False, {})
    pruned = _copied(module)
    dense = _rewritten(capture(pruned, tuple(example or ()), kwargs), plan)
    program = apply_plan_to_program(dense, plan)
    constants = _constants(module, dense, program)
    shrink(pruned, plan)
    inputs = tuple(example or ()), dict(kwargs or {})
    found, outcomes = Trials(pruned, inputs, dense, program, constants).fitting()
    if outcomes[-1].words:
        raise _refusal(module, plan, [outcome.words for outcome in outcomes], found)
    attributes = {**constants, **found}
    before = {place: getattr(module.get_submodule(place[0]), place[1]) for place in attributes}
    shrink(module, plan)
    set_attributes(module, attributes)
    changed = {place: (_told(before[place]), _told(value)) for place, value in attributes.items()}
    return AppliedPlan(True, {_name(place): values for place, values in changed.items()})


def _copied(module: nn.Module) -> nn.Module:
    """A copy without constant parameters: zeros and ones hide that something else is computed."""
    try:
        duplicate = copy.deepcopy(module)
    except Exception as error:
        raise InputError(
            f"{type(module).__name__} can't be copied, so that nothing can be checked: {first_line(error)}",
            hint="Without an example the plan is applied and not checked.",
        ) from error
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1 and parameter.min() == parameter.max():
                drawn = torch.rand(parameter.shape, generator=generator) + 0.5
                parameter.copy_(drawn)
    return duplicate


def _rewritten(program: Program, plan: PruningPlan) -> Program:
    """The program that the plan was made for."""
    for name in plan.rewritten_by:
        if name not in _REWRITING:
            raise InputError(
                f"The plan was made for the network as {name} had rewritten it, which can't be done again here.",
                hint="Train the pruned program itself.",
            )
        program = _REWRITING[name].run(program).program
    return program


def _constants(module: nn.Module, dense: Program, pruned: Program) -> Attributes:
    """Plain tensors among the module's attributes that the network's code reads, as the plan cuts them."""
    before, after = dense.tensors(), pruned.tensors()
    found: dict[tuple[str, str], Tensor] = {}
    modules = dict(module.named_modules())
    for name in dense.constants:
        path, _, leaf = name.rpartition(".")
        is_attribute = isinstance(vars(modules.get(path, nn.Module())).get(leaf), Tensor)
        if is_attribute and not torch.equal(before[name], after[name]):
            found[path, leaf] = after[name].detach()
    return found


def _refusal(module: nn.Module, plan: PruningPlan, words: list[str], tried: Attributes) -> UnsupportedModelError:
    further = ""
    if len(words) > 1:
        values = ", ".join(f"{_name(place)} = {_told(value)}" for place, value in list(tried.items())[:3])
        further = f" With {values}, which holds a width that the plan changes, it differs {words[-1]}."
    rewritten = f" The plan was made for the network as {', '.join(plan.rewritten_by)} rewrote it." * bool(
        plan.rewritten_by
    )
    return UnsupportedModelError(
        f"The plan can't be applied to {type(module).__name__}, which then differs from the pruned program "
        f"{words[0]}.{further}{rewritten} The module is as it was.",
        hint="Prune with for_module=true, which removes whole heads of attention; take such numbers from attributes or "
        "from the tensors in the code; or train the pruned program itself.",
    )


def _warn(module: nn.Module, plan: PruningPlan) -> None:
    modules = dict(module.named_modules())
    named = [
        f"{path or 'the network itself'} ({type(modules[path]).__name__}: {', '.join(operators)})"
        for path, operators in plan.sizes_in_code.items()
        if path in modules
    ]
    text = "The plan was applied and nothing was checked: give apply_plan example inputs."
    if plan.rewritten_by:
        text += f" It was made for the network as {', '.join(plan.rewritten_by)} rewrote it, which the module isn't."
    if named:
        text += (
            f" It changes sizes that may stand in the Python code of {len(named)} modules: {'; '.join(named)}. Take "
            "these sizes from the tensors in the code, or train the pruned program."
        )
    warnings.warn(text, SizesInCodeWarning if named else NotCheckedWarning, stacklevel=3)


def _name(place: tuple[str, str]) -> str:
    return ".".join(filter(None, place))


def _told(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else value
