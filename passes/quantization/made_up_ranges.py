"""A program on grids of made-up ranges: what takes the time, and has the operators, of one that is calibrated later."""

from collections.abc import Sequence

from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form, Range
from prunec.passes.quantization.placement import Placement, place
from prunec.passes.quantization.preparation import prepared
from prunec.passes.quantization.quantizers import clip_bounds, quantize

_ANY = Range(-1.0, 1.0)
#: Behind an activation that lets nothing below zero through: with it the grid takes the activation's place, as it will.
_NOT_NEGATIVE = Range(0.0, 1.0)


def quantized_untrained(program: Program, form: Form, kept: Sequence[str] = (), *, equalized: bool = False) -> Program:
    """A program in the form that calibration gives it, without a look at data.

    Args:
        program: The program in its inference form.
        form: Form of the grids of activations.
        kept: Globs over layers, or roles, that stay in higher precision.
        equalized: Whether calibration equalizes channels first.
    """
    program = prepared(program, equalized=equalized)
    placement = place(program, kept, form=form)
    return quantize(program, placement, _ranges(program, placement), form)


def _ranges(program: Program, placement: Placement) -> dict[str, Range]:
    nodes, ranges = {node.name: node for node in program.graph.nodes}, dict[str, Range]()
    for site in placement.sites:
        bounds = clip_bounds(nodes[site.source])
        own = _ANY if bounds is None or bounds[0] < 0 else _NOT_NEGATIVE
        ranges[site.family] = ranges.get(site.family, own) | own
    return ranges
