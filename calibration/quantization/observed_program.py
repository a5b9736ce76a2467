"""A network with the histograms of its values: what it takes to put any part of it on grids."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from prunec.calibration.quantization.histograms import Histogram
from prunec.calibration.quantization.range_methods import RangeMethod, ranges_of
from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form, Range
from prunec.passes.quantization.placement import Placement, place
from prunec.passes.quantization.quantizers import quantize


@dataclass(frozen=True, eq=False)
class ObservedProgram:
    """A network and the values that it has on calibration data.

    Attributes:
        program: The program in its inference form, prepared for grids.
        keep: Globs over layers, or roles, that stay in higher precision.
        histograms: The histogram of every tensor that the placement with these puts on a grid, by its source.
        method: How a range follows from a histogram.
        form: Form of the grids of activations.
    """

    program: Program
    keep: tuple[str, ...]
    histograms: Mapping[str, Histogram]
    method: RangeMethod
    form: Form

    def placement(self, sensitive: Collection[str] = ()) -> Placement:
        """The placement where these layers stay in higher precision, too, which has no tensor of its own."""
        return place(self.program, self.keep, sensitive, self.form)

    def ranges(self, placement: Placement) -> Mapping[str, Range]:
        """The range of each family of one of the placements."""
        return ranges_of(placement, self.histograms, self.method, self.form)

    def quantized(self, sensitive: Collection[str] = ()) -> Program:
        """The program on grids but for these layers, weights rounded to the nearest."""
        placement = self.placement(sensitive)
        return quantize(self.program, placement, self.ranges(placement), self.form)
