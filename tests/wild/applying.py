"""A plan on the user's own module: equal to the pruned program, or refused with the operator and the line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunec.passes import PassResult, Program, apply_plan
from prunec.passes.errors import PrunecError
from prunec.passes.oracle import relative_error
from prunec.passes.tensors import fingerprint, in_type, named_tensors
from prunec.passes.user_lines import is_users
from tests.wild.recording import Said
from tests.wild.subject import Subject, outputs

#: Relative differences of module and program that count as rounding.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-6}
#: How much more pruned module and program may differ than dense module and program: both round, in another order.
_NOISE_FACTOR = 10
_PLACE = re.compile(r"\bat (?P<operator>[\w., ]+?), (?P<file>[^\s,]+\.py):\d+ in ")


def check_applied(subject: Subject, dense: Program, result: PassResult) -> float:
    """Apply a plan to a fresh module, and compare the two.

    Returns:
        Their largest relative difference, in float64 where the network runs in it.

    Raises:
        Said: The plan is refused, with the operator and the line, and the module is as it was.
    """
    assert result.plan is not None
    module = subject.module()
    before = fingerprint(named_tensors(module))
    args, kwargs = subject.inputs()
    try:
        applied = apply_plan(module, result.plan, example=args, kwargs=kwargs)
    except PrunecError as error:
        assert fingerprint(named_tensors(module)) == before, f"refused, and the module isn't as it was: {error}"
        if not names_a_line(str(error)):
            raise
        raise Said(str(error)) from error
    assert applied.checked, "apply_plan says that nothing was checked"
    dtype, noise = _noise(subject, dense)
    error_ = _difference(subject, module, result.program, dtype)
    limit = max(_ROUNDING[dtype], _NOISE_FACTOR * noise)
    assert error_ < limit, f"applied, and the module differs from the program by {error_:.2g}; limit {limit:.2g}"
    return error_


def names_a_line(message: str) -> bool:
    """Whether a refusal names an operator and a line of a file that is there and is the user's."""
    return any(Path(match["file"]).is_file() and is_users(match["file"]) for match in _PLACE.finditer(message))


def _noise(subject: Subject, dense: Program) -> tuple[torch.dtype, float]:
    """The type to compare in, float64 where the network runs in it, and how much dense module and program differ."""
    try:
        return torch.float64, _difference(subject, subject.module(), dense, torch.float64)
    except Exception as error:  # noqa: BLE001 - networks that name float32 in their code fail in any way
        print(f"The network doesn't run in float64: {error}")
        return torch.float32, _difference(subject, subject.module(), dense, torch.float32)


def _difference(subject: Subject, module: nn.Module, program: Program, dtype: torch.dtype) -> float:
    inputs = in_type(subject.inputs(), dtype)
    sides: list[Callable[..., Any]] = [module.to(dtype), program.double() if dtype == torch.float64 else program]
    return relative_error(*(outputs(side, inputs) for side in sides))
