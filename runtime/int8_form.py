"""The form that a program has when an engine of a target is built of it."""

from prunec.passes.program import Program
from prunec.passes.quantization.made_up_ranges import quantized_untrained
from prunec.passes.sparsify import Sparsify
from prunec.runtime.grid_form import form_of
from prunec.runtime.target import Target


def as_timed(program: Program, target: Target) -> Program:
    """A program as it will be on a target, to be timed: 2:4 by magnitude, values on grids of made-up ranges."""
    program = Sparsify().run(program).program if target.sparse else program
    return quantized_untrained(program, form_of(target)) if target.on_grids else program
