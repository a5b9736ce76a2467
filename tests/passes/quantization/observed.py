"""Programs on grids, with ranges from the values of a few random inputs."""

from typing import Any

import torch
from torch import nn
from torch.fx import Interpreter, Node

from prunec.passes.feeding import bound, flat_inputs
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.grids import Form, Range
from prunec.passes.quantization.placement import Placement, place
from prunec.passes.quantization.quantizers import quantize
from tests.architectures.redraw import redraw_


class _Values(Interpreter):
    """Keeps the least and the most value of some tensors."""

    def __init__(self, program: Program, sources: set[str]) -> None:
        super().__init__(program.module)
        self.sources, self.ranges = sources, dict[str, Range]()

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.sources:
            self.ranges[n.name] = Range(*map(float, value.aminmax()))
        return value


@torch.no_grad()
def ranges_of(program: Program, placement: Placement, inputs: Any = None) -> dict[str, Range]:
    """The range of every family, by the values that these inputs give, or the example's."""
    args, kwargs = (program.example_args, program.example_kwargs) if inputs is None else bound(program, inputs)
    values = _Values(program, {site.source for site in placement.sites})
    values.run(*flat_inputs(program.graph, args, kwargs), enable_io_processing=False)
    found: dict[str, Range] = {}
    for site in placement.sites:
        seen = values.ranges[site.source]
        found[site.family] = found[site.family] | seen if site.family in found else seen
    return found


def folded(network: nn.Module, *shape: int, seed: int = 0) -> Program:
    """A float32 network with re-drawn weights, captured on random inputs, its batch norms folded."""
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return fold_batch_norms(capture(redraw_(network.eval(), seed), (inputs,))).program


def on_grids(program: Program, form: Form = "symmetric", kept: tuple[str, ...] = ()) -> Program:
    """A program quantized by the ranges of its example inputs."""
    placement = place(program, kept)
    return quantize(program, placement, ranges_of(program, placement), form)
