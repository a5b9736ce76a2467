"""Checks of the claims that a pass makes, by the framework and not by the author of the pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.passes.base import PassResult
from prunec.passes.errors import InputError, NumericMismatchError, SparsityGateError, first_line
from prunec.passes.oracle import TOLERANCE, OracleReport, check_oracle
from prunec.passes.patterns.unit_masks import has_pattern
from prunec.passes.program import Program
from prunec.passes.tensors import fingerprint

_HINT = "The pass claims otherwise, so this is a bug of it; please report it together with the architecture."


def verify_pass(before: Program, result: PassResult, name: str) -> OracleReport | None:
    """Check what a pass claims of its result.

    1. The outputs on the example input have the structure, shapes and dtypes that they had before; a program in
       inference form stays in it.
    2. With a plan, the program equals the one before with the removed slices zeroed (`check_oracle`). Without one,
       the parameters of both have the same shapes.
    3. Every mask is a bool tensor of its parameter's shape, and the parameter is zero where the mask is False. A mask
       that was there before is cut and ordered as its parameter was; any other has its pattern.
    4. Where the pass says that it modified nothing, tensors, masks and graph are the same.

    Messages name the pass.

    Returns:
        The oracle's report, None where the result has no plan.

    Raises:
        NumericMismatchError: A claim about the network's function is false, or the comparison says nothing.
        SparsityGateError: A claim about masks is false.
    """
    _check_outputs(before, result.program, name)
    report = _check_plan(before, result, name)
    _check_masks(before, result, name)
    if not result.modified and (
        contents(before) != contents(result.program) or (result.plan and not result.plan.is_empty)
    ):
        raise _mismatch(f"{name} says that it modified nothing, and its result differs from the program before.")
    return report


@contextmanager
def input_unchanged(program: Program, name: str) -> Iterator[None]:
    """Check that a pass, run within, leaves the program that goes into it as it is.

    Raises:
        NumericMismatchError: Tensors, masks, graph, form or example inputs of the program were changed.
    """
    contents_before = contents(program)
    yield
    if contents(program) != contents_before:
        raise _mismatch(f"{name} changed the program that went into it.")


def contents(program: Program) -> tuple[str, str, dict[str, str], str, str, bool]:
    """Values that equal programs share: tensors, masks and example inputs as fingerprints, patterns, code, form."""
    inputs = {str(position): tensor for position, tensor in enumerate(program.example_inputs)}
    code = program.graph.python_code("self").src
    masks = fingerprint(program.masks), {name: program.pattern_of(name).text for name in program.masks}
    return fingerprint(program.tensors()), *masks, fingerprint(inputs), code, program.training


def _mismatch(text: str) -> NumericMismatchError:
    return NumericMismatchError(text, hint=_HINT)


def _check_outputs(before: Program, after: Program, name: str) -> None:
    if after.training and not before.training:
        raise _mismatch(f"{name} gave the program back in training form.")
    expected, expected_structure = pytree.tree_flatten(_outputs(before, f"The program before {name}"))
    actual, structure = pytree.tree_flatten(_outputs(after, f"The program that {name} gave back"))
    if structure != expected_structure:
        raise _mismatch(f"The outputs after {name} have the structure {structure}, expected {expected_structure}.")
    for position, (a, b) in enumerate(zip(actual, expected, strict=True)):
        if _form(a) != _form(b):
            raise _mismatch(f"Output {position} after {name} is {_form(a)}, expected {_form(b)}.")


def _outputs(program: Program, what: str) -> object:
    """Outputs on the example input in eval form; the program and torch's random state stay as they are."""
    copy = program.clone().eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return copy(*copy.example_args, **copy.example_kwargs)
    except Exception as error:
        raise _mismatch(f"{what} doesn't run on its example input: {first_line(error)}") from error


def _form(output: object) -> str:
    return f"{tuple(output.shape)} {output.dtype}" if isinstance(output, Tensor) else type(output).__name__


def _check_plan(before: Program, result: PassResult, name: str) -> OracleReport | None:
    if result.plan is None:
        parameters = result.program.parameters()
        for parameter, old in before.parameters().items():
            if parameter in parameters and parameters[parameter].shape != old.shape:
                shapes = f"{tuple(parameters[parameter].shape)}, before {tuple(old.shape)}"
                raise _mismatch(
                    f"{parameter} has the shape {shapes}, and {name} gave no plan that says what it removed."
                )
        return None
    try:
        report = check_oracle(before, result, before.example_args, before.example_kwargs)
    except InputError as error:
        raise _mismatch(f"The plan of {name} doesn't fit the program before it: {error.message}") from error
    if not report.passed:
        raise _mismatch(
            f"The program after {name} differs from the one before with the removed slices zeroed by "
            f"{report.masked_max_relative_error:.2e} (relative), allowed {TOLERANCE:g}."
        )
    return report


def _check_masks(before: Program, result: PassResult, name: str) -> None:
    parameters, masks = result.program.parameters(), result.program.masks
    for lost in (before.masks.keys() & parameters.keys()) - masks.keys():
        raise _bad_mask(name, lost, "was lost, and the parameter is still there")
    for parameter, mask in masks.items():
        weight = parameters.get(parameter)
        if weight is None:
            raise _bad_mask(name, parameter, "belongs to no parameter of the program")
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            raise _bad_mask(name, parameter, f"is {_form(mask)}, expected {tuple(weight.shape)} torch.bool")
        if (weight.detach()[~mask] != 0).any():
            raise _bad_mask(name, parameter, "is False where the parameter is not zero")
        had, plan = before.masks.get(parameter), result.plan
        inherited = had if had is None or plan is None else plan.select(parameter, had)
        is_inherited = inherited is not None and torch.equal(mask, inherited)
        if had is not None and plan is not None and not is_inherited:
            raise _bad_mask(name, parameter, "was not cut and ordered as the plan cuts and orders its parameter")
        pattern = result.program.pattern_of(parameter)
        if not is_inherited and not has_pattern(pattern, mask):
            raise _bad_mask(name, parameter, pattern.violation)


def _bad_mask(name: str, parameter: str, problem: str) -> SparsityGateError:
    return SparsityGateError(f"After {name} the mask of {parameter} {problem}.", hint=_HINT)
