"""What values the tensors that are put on grids have on calibration data."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from prunec.calibration.quantization.histograms import Histogram
from prunec.passes.cost import layer_calls
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs, bound, flat_inputs, joined, part_of, sample_count, values_of_data
from prunec.passes.graphs import module_path, operator_name
from prunec.passes.interruption import stop_if_asked
from prunec.passes.program import Program
from prunec.passes.quantization.placement import Placement
from prunec.runtime.numerics import batch_sizes

#: Samples that run at once where the batch varies, which bounds memory.
_BATCH = 8


def observe(program: Program, placement: Placement, batches: Iterable[BatchInputs]) -> Mapping[str, Histogram]:
    """The histogram of every tensor that a placement puts on a grid, by its `Site.source`.

    Memory doesn't grow with the number of samples: they run a few at a time and only histograms are kept. The last
    samples aren't looked at where they are fewer than the network takes at once, as where its batch is fixed.

    Args:
        program: The program that the placement is of; it runs in its inference form.
        placement: The tensors to look at.
        batches: Preprocessed inputs of the network, in batches of any sizes.

    Raises:
        UsageError: There are no samples, or fewer than the network takes at once.
        NumericMismatchError: A value of such a tensor is not finite.
        InputError: The inputs are not those of the network.
    """
    observing = _Observing(program.inference(), placement)
    samples = 0
    for inputs in fitting(program, batches):
        with torch.no_grad(), values_of_data(inputs):
            arguments = flat_inputs(observing.program.graph, *bound(observing.program, inputs))
            observing.run(*arguments, enable_io_processing=False)
        samples += sample_count(inputs)
    if not samples:
        raise UsageError(
            f"Calibration needs at least {_sizes(program)[0]} inputs of the network, and the data gave fewer.",
            hint="Give more training samples, or calibrate on more of them.",
        )
    return observing.histograms


def _sizes(program: Program) -> tuple[int, int]:
    """The fewest samples that a program takes at once, and how many it is given."""
    if not program.batch_is_dynamic:
        return program.samples_of_shapes, program.samples_of_shapes
    return program.batch_bounds[0], batch_sizes(program, (_BATCH,))[0]


def fitting(program: Program, batches: Iterable[BatchInputs]) -> Iterator[BatchInputs]:
    """The samples a few at a time, as the network takes them.

    What is too few for it waits for the next batch, and isn't given where none comes.
    """
    least, size = _sizes(program)
    waiting: BatchInputs | None = None
    for batch in batches:
        given: BatchInputs = batch if waiting is None else joined([waiting, batch])
        waiting = None
        for start in range(0, sample_count(given), size):
            part = part_of(given, slice(start, start + size))
            if sample_count(part) < least:
                waiting = part
            else:
                yield part


class _Observing(Interpreter):
    """Runs a program, adding what it looks at to histograms."""

    def __init__(self, program: Program, placement: Placement) -> None:
        super().__init__(program.module)
        self.extra_traceback = False  # which would put torch's words into the messages of errors
        self.program, self.placement = program, placement
        self.histograms = {site.source: Histogram.of(torch.empty(0)) for site in placement.sites}

    def run_node(self, n: Node) -> Any:
        stop_if_asked()
        value = super().run_node(n)
        if n.name in self.histograms:
            self.histograms[n.name] += self._seen(n, value)
        return value

    def _seen(self, n: Node, value: Tensor) -> Histogram:
        try:
            return Histogram.of(value)
        except NumericMismatchError as error:
            raise self._not_finite(n, value) from error

    def _not_finite(self, n: Node, value: Tensor) -> NumericMismatchError:
        count = int((~value.isfinite()).sum())
        readers = {name for site in self.placement.sites if site.source == n.name for name in site.readers}
        layers = [layer.name for call, layer in layer_calls(self.program.graph) if call.name in readers]
        read = f", read by {', '.join(layers)}" * bool(layers)
        if n.op == "placeholder":
            what, hint = f"input {n.name!r}{read}", "Look for them in the data, and in how they are preprocessed."
        else:
            module = module_path(n)
            what = f"value of {n.name}, {operator_name(n.target)}{module and f' in {module}'}{read}"
            hint = (
                "Look for the first layer whose weights or batch norm statistics aren't finite or far too large, and "
                "whether the data are preprocessed as in training. Layers in calibrate{keep=...} aren't looked at."
            )
        return NumericMismatchError(
            f"On the calibration data, the {what}, has {count} of {value.numel()} numbers that are not finite, for "
            "which there is no range.",
            hint=hint,
        )
