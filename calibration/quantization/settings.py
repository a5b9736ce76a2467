"""How a network is calibrated: by the settings that are asked for, or by those that its outputs lose least by.

No way of choosing ranges is best for all networks, and equalization helps some and harms others. So they are tried, and
judged by the squared error of the network's outputs, relative to that of their size, on samples that nothing was
chosen by.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from prunec.calibration.one_shot import calibration_inputs
from prunec.calibration.quantization.bias_correction import correct_biases
from prunec.calibration.quantization.calibrate import AUTO, Calibrate, WeightRounding, setting_words
from prunec.calibration.quantization.channel_maxima import channel_maxima
from prunec.calibration.quantization.learned_rounding import LearnedRounding
from prunec.calibration.quantization.macs_budget import most_sensitive
from prunec.calibration.quantization.observed_program import ObservedProgram
from prunec.calibration.quantization.observing import fitting, observe
from prunec.calibration.quantization.parted import HELD_BACK_SHARE, PartedSamples
from prunec.calibration.quantization.range_methods import RangeMethod
from prunec.calibration.quantization.sensitivity import Progress, relative_squared_error, sensitivities
from prunec.passes.errors import UsageError
from prunec.passes.feeding import BatchInputs, feed, sample_count
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.method_names import METHODS, Method
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.preparation import prepared
from prunec.passes.quantization.smoothing import smooth
from prunec.runtime.numerics import batch_sizes

#: Samples whose values are in memory at once where weights and biases are chosen; sensitivities, for which the network
#: runs once for every layer, are measured on fewer.
_TOGETHER, _FOR_SENSITIVITY = 64, 32
#: The method whose ranges sensitivities are measured with where none is named.
_PLAIN: Method = "mse"


@dataclass(frozen=True, eq=False)
class Settled:
    """The settings that a network is calibrated by.

    Attributes:
        options: The options, with all that was chosen; `rounding` is what weights are to be rounded by.
        observed: The network in floating point, with its values; `ObservedProgram.quantized` puts it on grids.
        kept: Layers that stay in higher precision for a budget of multiply-accumulates, the most sensitive first.
        tried: What was tried, in words, and the relative squared error of the outputs by it, in order; empty where
            nothing was.
        held_back: Number of samples that it was judged on.
    """

    options: Calibrate
    observed: ObservedProgram
    kept: tuple[str, ...]
    tried: Mapping[str, float]
    held_back: int


def settle(options: Calibrate, program: Program, form: Form, samples: PartedSamples, progress: Progress) -> Settled:
    """Choose what the options leave open.

    Args:
        options: The options.
        program: The program, in its inference form.
        form: Form of the grids of activations.
        samples: The samples; some must be held back where settings are to be tried.
        progress: Told after every setting what it gave.

    Raises:
        UsageError: Settings are to be tried, and no sample is held back.
    """
    if options.method == AUTO:
        return _Trying(options, program, form, samples, progress).best()
    named = replace(options, equalize=options.equalize is True, rounding=options.rounding or "nearest")
    observed = _observed(named, program, form, samples)
    return Settled(named, observed, _kept(named, observed, samples), {}, 0)


def _observed(options: Calibrate, program: Program, form: Form, samples: PartedSamples) -> ObservedProgram:
    """The network in the form that goes on grids, and its values."""
    program = prepared(program, equalized=options.equalize is True)
    if options.smooth is not None:
        maxima = channel_maxima(program, fitting(program, samples.looked_at))
        program = smooth(program, maxima, options.smooth).program
    histograms = observe(program, place(program, options.keep, form=form), samples.looked_at)
    method = RangeMethod(_PLAIN if options.method == AUTO else options.method, options.percentile)
    return ObservedProgram(program, options.keep, histograms, method, form)


def few(program: Program, samples: Iterable[BatchInputs], count: int = _TOGETHER) -> BatchInputs:
    """Some of the samples, for what is costly in time or memory; no fewer than the network takes at once."""
    (size,) = batch_sizes(program, (count,))
    return calibration_inputs(((batch, None) for batch in samples), max(size, count))


def rounded(rounding: WeightRounding, reference: Program, nearest: Program, inputs: BatchInputs, seed: int) -> Program:
    """A quantized program with its weights rounded so.

    Args:
        rounding: How.
        reference: The program in floating point.
        nearest: The quantized program, with weights rounded to the nearest.
        inputs: Inputs of the network; the activations of all of them are in memory at once.
        seed: What learned rounding follows.
    """
    if rounding == "nearest":
        return nearest
    learn = LearnedRounding(seed=seed).learn if rounding == "learned" else correct_biases
    return learn(reference, nearest, inputs).program


def _kept(options: Calibrate, observed: ObservedProgram, samples: PartedSamples) -> tuple[str, ...]:
    """The layers that stay in higher precision for a budget of multiply-accumulates."""
    if options.keep_macs is None:
        return ()
    placement = observed.placement()
    batches = list(fitting(observed.program, [few(observed.program, samples.looked_at, _FOR_SENSITIVITY)]))
    found = sensitivities(observed.program, placement, observed.ranges(placement), observed.form, batches)
    return most_sensitive(found, placement, options.keep_macs)


class _Trying:
    """Trials of settings, all judged on the same samples."""

    def __init__(
        self, options: Calibrate, program: Program, form: Form, samples: PartedSamples, progress: Progress
    ) -> None:
        self.options, self.samples, self.progress, self.tried = options, samples, progress, dict[str, float]()
        # By entropy, ranges for FP8 are clipped far too much.
        self.methods = [method for method in METHODS if (form, method) != ("float8", "entropy")]
        ways = (False, True) if options.equalize is None else (options.equalize,)
        self.observed = {
            equalized: _observed(replace(options, equalize=equalized), program, form, samples) for equalized in ways
        }
        first = next(iter(self.observed.values()))
        self.judging = list(fitting(first.program, samples.held_back))
        if not self.judging:
            raise UsageError(
                f"calibrate: to try settings 1 in {round(1 / HELD_BACK_SHARE)} samples is held back; there are fewer.",
                hint="Give more samples, or name a method, such as mse.",
            )
        with torch.no_grad():
            self.expected = [feed(first.program, inputs) for inputs in stoppable(self.judging)]
        self.kept = _kept(options, first, samples)

    def best(self) -> Settled:
        """The best settings."""
        found = {}
        for equalized, observed in self.observed.items():
            for method in self.methods:
                each = replace(observed, method=RangeMethod(method, self.options.percentile))
                settings = replace(self.options, method=method, equalize=equalized)
                words = setting_words(settings.method_text, equalized)
                found[words] = (settings, each, self._judged(words, each.quantized(self.kept)))
        words = min(self.tried, key=self.tried.__getitem__)
        settings, observed, program = found[words]
        if settings.rounding is None:
            corrected = correct_biases(observed.program, program, few(observed.program, self.samples.looked_at)).program
            other = setting_words(settings.method_text, settings.equalize is True, corrected=True)
            self._judged(other, corrected)
            is_better = self.tried[other] < self.tried[words]
            settings = replace(settings, rounding="corrected" if is_better else "nearest")
        held_back = sum(map(sample_count, self.judging))
        return Settled(settings, observed, self.kept, self.tried, held_back)

    def _judged(self, words: str, program: Program) -> Program:
        """The program itself, once the error of its outputs is noted."""
        with torch.no_grad():
            given = [feed(program, inputs) for inputs in stoppable(self.judging)]
        self.tried[words] = relative_squared_error(given, self.expected)
        total = len(self.observed) * len(self.methods) + (self.options.rounding is None)
        self.progress(len(self.tried), total, f"{words}: error of the outputs {self.tried[words]:.2g}")
        return program
