"""The network on grids, its weights rounded as is asked for; what that brings, and what it runs."""

import math
from collections.abc import Mapping

import torch

from prunec.calibration.quantization.bias_correction import RUNS_OF_CORRECTION
from prunec.calibration.quantization.observing import fitting
from prunec.calibration.quantization.output_error import output_error
from prunec.calibration.quantization.parted import PartedSamples
from prunec.calibration.quantization.settings import Settled, few, rounded
from prunec.compiler.facts.ledger import MacsPerSample
from prunec.compiler.facts.step_facts import StepCost, StepInput
from prunec.passes.errors import NumericMismatchError
from prunec.passes.feeding import BatchInputs, feed, part_of, sample_count
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.passes.quantization.quantizers import is_quantized
from prunec.runtime.numerics import batch_sizes


class WeightRounder:
    """Rounds the weights of a calibrated network, for each set of layers in higher precision once.

    Attributes:
        learns_from_judged: Whether errors are measured on the images that weights were rounded by, since there are no
            others.
    """

    def __init__(self, given: StepInput, settled: Settled, samples: PartedSamples) -> None:
        self._given, self._settled, self._samples = given, settled, samples
        self._done: dict[tuple[str, ...], tuple[Program, dict[str, float]]] = {}
        self._samples_run, self._learning_forward, self._learning_backward = 0, 0.0, 0.0
        self.learns_from_judged = False

    def __call__(self, kept: tuple[str, ...]) -> Program:
        """Give the network on grids, without these layers."""
        return self._of(kept)[0]

    def errors(self, kept: tuple[str, ...]) -> Mapping[str, float]:
        """Errors as `Calibrated` has them, those that are finite.

        Raises:
            NumericMismatchError: That of the network that is left isn't.
        """
        errors = self._of(kept)[1]
        rounding = self._settled.options.rounding or "nearest"
        if not math.isfinite(errors.get(rounding, 0.0)):
            raise NumericMismatchError(
                "calibrate: the outputs of the network on grids can't be compared with those in floating point: they "
                "are not finite, or these are all zero.",
                hint="Look at the outputs for some of the data, or keep layers in higher precision: keep=...",
            )
        return {name: error for name, error in errors.items() if math.isfinite(error)}

    @property
    def cost(self) -> StepCost | None:
        """What rounding and its judgement ran, all runs together; None where nothing had to."""
        if not self._samples_run:
            return None
        forward = self._settled.observed.program.macs() + self._learning_forward / self._samples_run
        macs = MacsPerSample(forward=forward, backward=self._learning_backward / self._samples_run)
        return StepCost(samples=self._samples_run, macs_per_sample=macs)

    def _of(self, kept: tuple[str, ...]) -> tuple[Program, dict[str, float]]:
        if kept not in self._done:
            self._done[kept] = self._finished(kept)
        return self._done[kept]

    def _finished(self, kept: tuple[str, ...]) -> tuple[Program, dict[str, float]]:
        settled, reference = self._settled, self._settled.observed.program
        nearest, rounding = settled.observed.quantized(kept), settled.options.rounding or "nearest"
        if not is_quantized(nearest.graph) or (rounding == "nearest" and not settled.before):
            return nearest, {}
        self._given.request.settings.progress.stage(f"round weights, {rounding}")
        learned_from, judged = self._parts(reference)
        result = rounded(rounding, reference, nearest, learned_from, self._given.seed)
        forms: dict[str, Program] = {"nearest": nearest, rounding: result.program}
        forms = {done: each.quantized(kept) for done, each in settled.before.items()} | forms
        batches = list(fitting(reference, [judged]))
        with torch.no_grad():
            expected = [feed(reference, inputs) for inputs in stoppable(batches)]
        errors = {name: output_error(each, batches, expected) for name, each in forms.items()}
        runs = {"nearest": 0, "corrected": RUNS_OF_CORRECTION, "learned": 1}[rounding]
        self._samples_run += runs * sample_count(learned_from) + (1 + len(forms)) * sum(map(sample_count, batches))
        layers = result.stats["layers"] if rounding == "learned" else []
        self._learning_forward += sum(layer["forward_macs"] for layer in layers)
        self._learning_backward += sum(layer["backward_macs"] for layer in layers)
        return result.program, errors

    def _parts(self, reference: Program) -> tuple[BatchInputs, BatchInputs]:
        """Images that weights are rounded by, and others that errors are measured on; the same where there are none."""
        learned_from = few(reference, self._samples.looked_at)
        count = sample_count(learned_from)
        others = part_of(few(reference, self._samples.looked_at, 2 * count), slice(count, None))
        (size,) = batch_sizes(reference, (1,))
        if sample_count(others) < size:
            self.learns_from_judged = True
            return learned_from, learned_from
        return learned_from, others
