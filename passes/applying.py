"""A plan on the user's own module, checked side by side with the pruned program."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.passes.errors import InputError, UnsupportedModelError, first_line
from prunec.passes.factorizing import factorized
from prunec.passes.factors import layer_of_factors
from prunec.passes.fold import FoldParameters
from prunec.passes.frontend import capture
from prunec.passes.graphs import calls, operator_name
from prunec.passes.module_copy import duplicate
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.own_layers import shrink
from prunec.passes.own_sizes import Trials, in_float64, runs_in_training
from prunec.passes.plan import PruningPlan, misfit
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program, beside_branches
from prunec.passes.size_attributes import Attributes, set_attributes
from prunec.passes.tensors import CPU, Inputs, copied_inputs, named_tensors

#: Passes that rewrite a network's graph, by name.
_REWRITING = {FoldParameters.name: FoldParameters()}


class NotCheckedWarning(UserWarning):
    """The warning that a plan was applied to a module and nothing was checked."""


class BranchesStayWarning(UserWarning):
    """The warning that branches which a plan removes stay in the module, with zeros as their values."""


class SizesInCodeWarning(NotCheckedWarning):
    """The warning that some modules' own Python code holds sizes that a plan changes."""


@dataclass(frozen=True)
class AppliedPlan:
    """What `apply_plan` did besides slicing tensors and correcting the sizes of torch's layers.

    Attributes:
        checked: Whether the module was compared with the pruned program.
        attributes: Attributes of the user's modules that hold pruned widths and were set to the new ones, with the
            values before and after: ``{"encoder.0.attention.head_dim": (64, 32)}``. Of tensors the shapes stand there.
        zeroed: Names of the tensors that are zero, by the name of the branch that the plan removes.
    """

    checked: bool
    attributes: dict[str, tuple[Any, Any]]
    zeroed: dict[str, tuple[str, ...]] = field(default_factory=dict)


def apply_plan(
    module: nn.Module, plan: PruningPlan, example: tuple[Any, ...] | None = None, kwargs: dict[str, Any] | None = None
) -> AppliedPlan:
    """Prune the user's own module in place: slice its tensors and correct its modules' sizes.

    Where the plan decomposes a layer, an `nn.Sequential` of two takes its place.

    With an example the module is run side by side with the pruned program, in float64, in eval mode and on copies.
    Parameters and inputs that are constant (fresh gains and biases, ``torch.ones``) hide errors and are drawn at
    random. In training mode the module has to run, where it did before. Widths that stand in attributes of the user's
    modules (``self.head_dim``) are set to the new ones where that makes both equal. Where nothing does, the module is
    left as it was. Without an example nothing is checked, and a warning says so.

    A branch can't be taken out of the module's code: its last layer is zeroed, with norms behind it, so that its value
    is zero, and a warning says so.

    Args:
        module: A module of the class that the plan was made for, on any device; its weights may differ.
        plan: A plan that `PruneFilters` returned.
        example: Positional inputs of the module.
        kwargs: Keyword inputs of the module.

    Raises:
        InputError: The plan names tensors or indices that the module doesn't have, the module can't be copied,
            whole numbers are all of the example, and the same, or branches and slices go and there is no example.
        UnsupportedModelError: Module and program differ: the operator and the line of the user's code are named. Or
            zeros in its tensors don't make a branch's value zero.
    """
    zeroed = _zeroed(module, plan)
    if example is None and kwargs is None and plan.removed_branches and plan.cuts.kept:
        raise InputError(
            "The plan removes branches and slices, and only running the module tells which slices of the branches that "
            "its code keeps go with them.",
            hint="Give apply_plan example inputs.",
        )
    if example is None and kwargs is None:
        shrink(module, plan)
        _zero(named_tensors(module), zeroed)
        _warn(module, plan)
        return AppliedPlan(False, {}, zeroed)
    inputs = _telling(copied_inputs((tuple(example or ()), dict(kwargs or {})), CPU))
    pruned = _copied(module)
    dense = as_rewritten(capture(pruned, *inputs), plan)
    program, own = _as_module(dense, plan)
    constants = _constants(module, dense, program)
    trains = runs_in_training(pruned, inputs)
    shrink(pruned, own)
    _zero(named_tensors(pruned), zeroed)
    alike = factorized(dense, plan.ranks)  # in which the program differs from the dense one by its widths alone
    fitted, outcomes = Trials(pruned, inputs, alike, program, constants, trains).fitting()
    if outcomes[-1].words:
        raise _refusal(module, plan, dense, [outcome.words for outcome in outcomes], fitted)
    attributes = {**constants, **fitted}
    before = {place: getattr(module.get_submodule(place[0]), place[1]) for place in attributes}
    shrink(module, own)
    _zero(named_tensors(module), zeroed)
    set_attributes(module, attributes)
    _warn_of_branches(plan)
    changed = {place: (_told(before[place]), _told(value)) for place, value in attributes.items()}
    return AppliedPlan(True, {_name(place): values for place, values in changed.items()}, zeroed)


def _zeroed(module: nn.Module, plan: PruningPlan) -> dict[str, tuple[str, ...]]:
    """The tensors to zero by branch, of which the module has every one."""
    tensors = named_tensors(module)
    for branch in plan.removed_branches:
        if not branch.zeroed:
            raise _stays(module, branch.name, "no zeros in its own tensors are known to make its value zero")
        if missing := [name for name in branch.zeroed if name not in tensors]:
            raise misfit(
                f"The plan zeroes tensors that {type(module).__name__} doesn't have: {', '.join(missing[:3])}."
            )
    return {branch.name: branch.zeroed for branch in plan.removed_branches}


@torch.no_grad()
def _zero(tensors: Mapping[str, Tensor], zeroed: Mapping[str, tuple[str, ...]]) -> None:
    """Fill tensors with zeros, in place."""
    for names in zeroed.values():
        for name in names:
            tensors[name].zero_()


def _as_module(dense: Program, plan: PruningPlan) -> tuple[Program, PruningPlan]:
    """The program that the pruned module must equal, and the plan for its tensors.

    Where branches go it is the program that keeps them, with zeros in their tensors, and equals the one without them.

    Raises:
        UnsupportedModelError: It doesn't: zeros in a branch's tensors don't make its value zero.
    """
    without = apply_plan_to_program(dense, plan)
    if not plan.removed_branches:
        return without, plan
    program, own = beside_branches(dense, plan)
    program = program.clone()
    _zero(program.tensors(), {branch.name: branch.zeroed for branch in plan.removed_branches})
    error = relative_error(*(in_float64(each) for each in (program, without)))
    if error > TOLERANCE:
        names = ", ".join(branch.name for branch in plan.removed_branches)
        raise _stays("the module", names, f"with zeros in its tensors the outputs differ by {error:.1e} (relative)")
    return program, own


def _stays(module: nn.Module | str, name: str, reason: str) -> UnsupportedModelError:
    what = module if isinstance(module, str) else type(module).__name__
    return UnsupportedModelError(
        f"The plan removes {name}, which can't be taken out of the code of {what}: {reason}. The module is as it was.",
        hint="Train the pruned program itself.",
    )


def _telling(inputs: Inputs) -> Inputs:
    """Inputs that aren't all constant: of tokens that are alike attention makes the same, whatever it computes.

    Raises:
        InputError: They are whole numbers, whose range isn't known.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.ndim > 1]
    drawn = {id(tensor) for tensor in tensors if tensor.is_floating_point()}
    if any(tensor.dtype != torch.bool and not _is_constant(tensor) for tensor in tensors):
        return inputs
    if tensors and not drawn:
        raise InputError(
            "All values of the example are the same, which hides differences: tokens that are alike attend alike.",
            hint="Give an example with different ones, such as torch.randint(0, vocabulary, (2, 16)).",
        )
    generator = torch.Generator().manual_seed(0)
    return pytree.tree_map(lambda leaf: _drawn(leaf, generator) if id(leaf) in drawn else leaf, inputs)  # type: ignore[no-any-return]


def _copied(module: nn.Module) -> nn.Module:
    """A copy without constant parameters: zeros and ones hide that something else is computed."""
    try:
        copied = duplicate(module)
    except Exception as error:
        raise InputError(
            f"{type(module).__name__} can't be copied, so that nothing can be checked: {first_line(error)}",
            hint="Without an example the plan is applied and not checked.",
        ) from error
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.is_floating_point() and parameter.numel() and _is_constant(parameter):
                parameter.copy_(_drawn(parameter, generator))
    return copied


def _is_constant(tensor: Tensor) -> bool:
    return tensor.numel() == 0 or bool(tensor.min() == tensor.max())


def _drawn(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(tensor.shape, generator=generator) + 0.5).to(tensor)


def as_rewritten(program: Program, plan: PruningPlan) -> Program:
    """The program that a plan was made for, of a network's own.

    Raises:
        InputError: A pass had rewritten it whose work can't be done again.
    """
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
    values: dict[tuple[str, str], Tensor] = {}
    modules = dict(module.named_modules())
    for name in dense.constants:
        path, _, leaf = name.rpartition(".")
        is_attribute = isinstance(vars(modules.get(path, nn.Module())).get(leaf), Tensor)
        if is_attribute and not torch.equal(before[name], after[name]):
            values[path, leaf] = after[name].detach()
    return values


def _refusal(
    module: nn.Module, plan: PruningPlan, dense: Program, words: list[str], tried: Attributes
) -> UnsupportedModelError:
    attends = any(re.search("softmax|attention", operator_name(node.target)) for node in calls(dense.graph))
    further = ""
    if len(words) > 1:
        values = ", ".join(f"{_name(place)} = {_told(value)}" for place, value in list(tried.items())[:3])
        further = f" With {values}, which holds a width that the plan changes, it differs {words[-1]}."
    rewritten = f" The plan was made for the network as {', '.join(plan.rewritten_by)} rewrote it." * bool(
        plan.rewritten_by
    )
    return UnsupportedModelError(
        f"The plan can't be applied to {type(module).__name__}, which then differs from the pruned program "
        f"{words[0]}.{further}{rewritten}{_two_layers(plan)} The module is as it was.",
        hint="Prune with for_module=true, which removes whole heads of attention. " * attends
        + "Take sizes from attributes or from the tensors in the code, or train the pruned program itself.",
    )


def _two_layers(plan: PruningPlan) -> str:
    """A sentence on the layers that the plan decomposes, which code that reads their weights can't know."""
    names = [layer_of_factors(weight).rstrip(".") for weight in plan.ranks]
    return (
        f" The plan puts two layers in the place of each of {len(names)} layers, such as {names[0]}." if names else ""
    )


def _warn_of_branches(plan: PruningPlan) -> None:
    if plan.removed_branches:
        names = ", ".join(branch.name for branch in plan.removed_branches)
        warnings.warn(
            f"The module's code keeps the {len(plan.removed_branches)} branches that the plan removes: {names}. Their "
            "last layers, and norms behind these, are zero, so that their values are; they cost what they did, and "
            "training makes them more than zero.",
            BranchesStayWarning,
            stacklevel=3,
        )


def _warn(module: nn.Module, plan: PruningPlan) -> None:
    _warn_of_branches(plan)
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
