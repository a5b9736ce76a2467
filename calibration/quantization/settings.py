"""How a network is calibrated: by the settings that are asked for, or by those that its outputs lose least by.

No way of choosing ranges is best for all networks, and equalization helps some and harms others. So they are tried, and
judged by the squared error of the network's outputs, relative to that of their size, on samples that nothing was
chosen by.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from prunec.calibration.one_shot import calibration_inputs
from prunec.calibration.quantization.bias_correction import correct_biases
from prunec.calibration.quantization.calibrate import AUTO, Calibrate, WeightRounding, setting_words
from prunec.calibration.quantization.learned_rounding import LearnedRounding
from prunec.calibration.quantization.macs_budget import most_sensitive
from prunec.calibration.quantization.observed import Observed
from prunec.calibration.quantization.observing import fitting
from prunec.calibration.quantization.parted import Parted
from prunec.calibration.quantization.range_methods import RangeMethod
from prunec.calibration.quantization.sensitivity import relative_squared_error, sensitivities
from prunec.passes.errors import UsageError
from prunec.passes.feeding import BatchInputs, feed, sample_count
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.passes.quantization.method_names import METHODS
from prunec.runtime.numerics import batch_sizes

#: Samples that are held back to judge settings, at most, and the largest share of all that they are.
MOST_HELD_BACK, HELD_BACK_SHARE = 64, 0.25
#: Samples whose values are in memory at once where biases are corrected, and those that sensitivities are measured on.
_TOGETHER = 64
#: The method whose ranges sensitivities are measured with where none is named.
_PLAIN = "mse"

#: Whether channels are equalized -> the network so, with the values that it has on calibration data.
ObservedSo = Callable[[bool], Observed]
#: (settings that were tried, about how many there are in all, what the last one gave).
Told = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Settled:
    """The settings that a network is calibrated by.

    Attributes:
        options: The options, with all that was chosen; `rounding` is what weights are to be rounded by.
        observed: The network in floating point, with its values; `Observed.quantized` puts it on grids.
        kept: Layers that stay in higher precision for a budget of multiply-accumulates, the most sensitive first.
        tried: What was tried, in words, and the relative squared error of the outputs by it, in order; empty where
            nothing was.
        held_back: Number of samples that it was judged on.
    """

    options: Calibrate
    observed: Observed
    kept: tuple[str, ...]
    tried: Mapping[str, float]
    held_back: int


def parted(samples: Iterable[BatchInputs], count: int) -> Parted:
    """Samples, about so many, of which some are held back."""
    return Parted(samples, max(round(1 / HELD_BACK_SHARE), -(-count // MOST_HELD_BACK)))


def settle(options: Calibrate, observed_so: ObservedSo, samples: Parted, told: Told) -> Settled:
    """Choose what the options leave open.

    Args:
        options: The options.
        observed_so: Gives the network, and the values that it has on the samples that aren't held back.
        samples: The samples.
        told: Told what is tried, and what came of it.

    Raises:
        UsageError: Settings are to be tried, and there are too few samples to hold one back.
    """
    if options.method != AUTO:
        observed = observed_so(options.equalize is True)
        kept = _kept(options, observed, samples)
        named = replace(options, equalize=options.equalize is True, rounding=options.rounding or "nearest")
        return Settled(named, observed, kept, {}, 0)
    return _Trying(options, observed_so, samples, told).best()


def range_method(options: Calibrate) -> RangeMethod:
    """The method of ranges that options name, or the one to begin with."""
    return RangeMethod(_PLAIN if options.method == AUTO else options.method, options.percentile)


def few(program: Program, samples: Iterable[BatchInputs]) -> BatchInputs:
    """Some of the samples, for what keeps the values of all of them in memory; as many as the network takes at once."""
    (size,) = batch_sizes(program, (_TOGETHER,))
    return calibration_inputs(((batch, None) for batch in samples), max(size, _TOGETHER))


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


def _kept(options: Calibrate, observed: Observed, samples: Iterable[BatchInputs]) -> tuple[str, ...]:
    """The layers that stay in higher precision for a budget of multiply-accumulates."""
    if options.keep_macs is None:
        return ()
    placement = observed.placement()
    batches = list(fitting(observed.program, [few(observed.program, samples)]))
    found = sensitivities(observed.program, placement, observed.ranges(placement), observed.form, batches)
    return most_sensitive(found, placement, options.keep_macs)


class _Trying:
    """Trials of settings, all judged on the same samples."""

    def __init__(self, options: Calibrate, observed_so: ObservedSo, samples: Parted, told: Told) -> None:
        self.options, self.samples, self.told, self.tried = options, samples, told, dict[str, float]()
        ways = (False, True) if options.equalize is None else (options.equalize,)
        self.observed = {equalized: observed_so(equalized) for equalized in ways}
        first = next(iter(self.observed.values()))
        self.judging = list(fitting(first.program, samples.held_back()))
        if not self.judging:
            raise UsageError(
                f"calibrate: to try settings 1 of {samples.every} samples is held back, and there are fewer.",
                hint="Give more samples, or name a method, such as mse.",
            )
        with torch.no_grad():
            self.expected = [feed(first.program, inputs) for inputs in stoppable(self.judging)]
        self.kept = _kept(options, first, samples)

    def best(self) -> Settled:
        """The best settings."""
        found = {}
        for equalized, observed in self.observed.items():
            for method in METHODS:
                each = replace(observed, method=RangeMethod(method, self.options.percentile))
                settings = replace(self.options, method=method, equalize=equalized)
                words = setting_words(settings.method_text, equalized)
                found[words] = (settings, each, self._judged(words, each.quantized(self.kept)))
        words = min(self.tried, key=self.tried.__getitem__)
        settings, observed, program = found[words]
        if settings.rounding is None:
            corrected = correct_biases(observed.program, program, few(observed.program, self.samples)).program
            other = setting_words(settings.method_text, settings.equalize is True, corrected=True)
            self._judged(other, corrected)
            is_better = self.tried[other] < self.tried[words]
            settings = replace(settings, rounding="corrected" if is_better else "nearest")
        held_back = sum(map(sample_count, self.judging))
        return Settled(settings, observed, self.kept, self.tried, held_back)

    def _judged(self, words: str, program: Program) -> Program:
        """The program itself, once the error of its outputs is noted."""
        with torch.no_grad():
            errors = [
                sample_count(inputs) * relative_squared_error(feed(program, inputs), outputs)
                for inputs, outputs in zip(stoppable(self.judging), self.expected, strict=True)
            ]
        self.tried[words] = sum(errors) / sum(map(sample_count, self.judging))
        total = len(self.observed) * len(METHODS) + (self.options.rounding is None)
        self.told(len(self.tried), total, f"{words}: error of the outputs {self.tried[words]:.2g}")
        return program
