"""The grids that a target's kernels compute on. Imports no torch."""

from typing import TYPE_CHECKING

from prunec.runtime.target import Target

if TYPE_CHECKING:
    from prunec.passes.quantization.grids import Form

_FORMS: "dict[str, Form]" = {"fp8": "float8", "int4": "int4"}


def form_of(target: Target) -> "Form":
    """The form of the grids that the kernels of a target on grids take."""
    if target.precision in _FORMS:
        return _FORMS[target.precision]
    return "affine" if target.info.zero_points else "symmetric"
