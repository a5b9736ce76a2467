"""How a network is calibrated: by the settings that are asked for, or by those that its outputs lose least by.

No way of choosing ranges is best for all networks, and equalization helps some and harms others. So they are tried, and
judged by the error of the network's outputs (`output_error`) on samples that nothing was chosen by.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from prunec.calibration.one_shot import calibration_inputs
from prunec.calibration.quantization.bias_correction import RUNS_OF_CORRECTION, correct_biases
from prunec.calibration.quantization.calibrate import (
    AUTO,
    EQUALIZED,
    UNCHANGED,
    Calibrate,
    WeightRounding,
    setting_words,
)
from prunec.calibration.quantization.channel_maxima import channel_maxima
from prunec.calibration.quantization.learned_rounding import LearnedRounding
from prunec.calibration.quantization.macs_budget import most_sensitive
from prunec.calibration.quantization.observed_program import ObservedProgram
from prunec.calibration.quantization.observing import fitting, observe
from prunec.calibration.quantization.output_error import output_error
from prunec.calibration.quantization.parted import HELD_BACK_SHARE, Counted, PartedSamples
from prunec.calibration.quantization.range_methods import RangeMethod
from prunec.calibration.quantization.sensitivity import TrialProgress, sensitivities
from prunec.passes.base import PassResult
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs, feed, sample_count
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.passes.quantization.equalization import equalize
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.method_names import RANGE_METHODS, MethodName
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.preparation import prepared
from prunec.passes.quantization.smoothing import smooth, smoothable
from prunec.runtime.numerics import batch_sizes

#: Samples whose values are in memory at once where weights and biases are chosen; sensitivities, for which the network
#: runs once for every layer, are measured on fewer.
_TOGETHER, _FOR_SENSITIVITY = 64, 32
#: The method whose ranges sensitivities are measured with where none is named.
_PLAIN: MethodName = "mse"


@dataclass(frozen=True, eq=False)
class Settled:
    """The settings that a network is calibrated by.

    Attributes:
        options: The options, with all that was chosen; `rounding` is what weights are to be rounded by, and `smooth` is
            None where nothing can be smoothed.
        observed: The network in floating point, with its values; `ObservedProgram.quantized` puts it on grids.
        kept: Layers that stay in higher precision for a budget of multiply-accumulates, the most sensitive first.
        tried: What was tried, in words, and the error of the outputs by it, in order, where that is finite; empty where
            nothing was tried.
        held_back: Number of samples that it was judged on.
        before: The same network with less done to its channels, by what was done, the least first: without equalization
            and smoothing, and where both did something with equalization alone; empty where neither did.
        channels: What was done to channels.
        samples_run: Samples that ran through the network for it, repeated ones counted again, but for sensitivities.
        samples_for_sensitivity: Samples that ran to tell which layers are kept for a budget.
    """

    options: Calibrate
    observed: ObservedProgram
    kept: tuple[str, ...]
    tried: Mapping[str, float]
    held_back: int
    before: Mapping[str, ObservedProgram]
    channels: "ChannelChanges"
    samples_run: int
    samples_for_sensitivity: int


@dataclass(frozen=True)
class ChannelChanges:
    """What was done to channels before they were observed.

    Attributes:
        equalized: Number of groups of channels that were equalized.
        smoothed: Number of those that were smoothed.
        largest_factor: Largest factor of a channel by equalization, or inverse of one; 1 where nothing was equalized.
    """

    equalized: int = 0
    smoothed: int = 0
    largest_factor: float = 1.0


def settle(
    options: Calibrate, program: Program, form: Form, samples: PartedSamples, progress: TrialProgress
) -> Settled:
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
    observing = _Observing(program, form, samples)
    named = replace(options, equalize=options.equalize is True, rounding=options.rounding or "nearest")
    observed, channels = observing.of(named)
    kept, for_sensitivity = _kept(named, observed, samples)
    return Settled(
        options=replace(named, smooth=named.smooth if channels.smoothed else None),
        observed=observed,
        kept=kept,
        tried={},
        held_back=0,
        before=observing.before(named, channels),
        channels=channels,
        samples_run=observing.samples_run,
        samples_for_sensitivity=for_sensitivity,
    )


class _Observing:
    """A network in the forms that go on grids, each with its values, and the samples that ran for them."""

    def __init__(self, program: Program, form: Form, samples: PartedSamples) -> None:
        self._program, self._form, self._looked_at = program, form, Counted(samples.looked_at)

    @property
    def samples_run(self) -> int:
        """Samples that ran so far."""
        return self._looked_at.count

    def of(self, options: Calibrate) -> tuple[ObservedProgram, ChannelChanges]:
        """The network by some options, and what they changed of its channels."""
        program, channels = prepared(self._program, equalized=False), ChannelChanges()
        if options.equalize:
            result = equalize(program)
            stats, program = result.stats, result.program
            channels = ChannelChanges(equalized=stats["groups"], largest_factor=stats["largest_factor"])
        if options.smooth is not None and smoothable(program):
            maxima = channel_maxima(program, fitting(program, self._looked_at))
            result = smooth(program, maxima, options.smooth)
            channels, program = replace(channels, smoothed=result.stats["groups"]), result.program
        histograms = observe(program, place(program, options.keep, form=self._form), self._looked_at)
        method = RangeMethod(_PLAIN if options.method == AUTO else options.method, options.percentile)
        return ObservedProgram(program, options.keep, histograms, method, self._form), channels

    def before(
        self, options: Calibrate, channels: ChannelChanges, unchanged: ObservedProgram | None = None
    ) -> Mapping[str, ObservedProgram]:
        """The network by the same options but with less done to its channels, as `Settled.before` has it.

        Args:
            options: The options.
            channels: What they changed.
            unchanged: The network with its channels as they were, where it has run already.
        """
        if not (channels.equalized or channels.smoothed):
            return {}
        before = {UNCHANGED: unchanged or self.of(replace(options, equalize=False, smooth=None))[0]}
        if channels.equalized and channels.smoothed:
            before[EQUALIZED] = self.of(replace(options, smooth=None))[0]
        return before


def few(program: Program, samples: Iterable[BatchInputs], count: int = _TOGETHER) -> BatchInputs:
    """Some of the samples, for what is costly in time or memory; no fewer than the network takes at once."""
    (size,) = batch_sizes(program, (count,))
    return calibration_inputs(((batch, None) for batch in samples), max(size, count))


def rounded(
    rounding: WeightRounding, reference: Program, nearest: Program, inputs: BatchInputs, seed: int
) -> PassResult:
    """A quantized program with its weights rounded so.

    Args:
        rounding: Method by which weights are rounded.
        reference: The program in floating point.
        nearest: The quantized program, with weights rounded to the nearest.
        inputs: Inputs of the network; the activations of all of them are in memory at once.
        seed: Seed of learned rounding.
    """
    if rounding == "nearest":
        return PassResult(nearest, modified=False)
    learn = LearnedRounding(seed=seed).learn if rounding == "learned" else correct_biases
    return learn(reference, nearest, inputs)


def _kept(options: Calibrate, observed: ObservedProgram, samples: PartedSamples) -> tuple[tuple[str, ...], int]:
    """The layers that stay in higher precision for a budget of multiply-accumulates, and the samples that ran."""
    if options.keep_macs is None:
        return (), 0
    placement = observed.placement()
    batches = list(fitting(observed.program, [few(observed.program, samples.looked_at, _FOR_SENSITIVITY)]))
    measured = sensitivities(observed.program, placement, observed.ranges(placement), observed.form, batches)
    return most_sensitive(measured, placement, options.keep_macs), (len(measured) + 1) * sum(map(sample_count, batches))


class _Trying:
    """Trials of settings, all judged on the same samples."""

    def __init__(
        self, options: Calibrate, program: Program, form: Form, samples: PartedSamples, progress: TrialProgress
    ) -> None:
        self.options, self.samples, self.progress, self.tried = options, samples, progress, dict[str, float]()
        self.methods, self.trials = _methods(form), 0
        ways = (False, True) if options.equalize is None else (options.equalize,)
        self.observing = _Observing(program, form, samples)
        by_way = {equalized: self.observing.of(replace(options, equalize=equalized)) for equalized in ways}
        self.observed = {equalized: observed for equalized, (observed, _) in by_way.items()}
        self.channels = {equalized: channels for equalized, (_, channels) in by_way.items()}
        first = next(iter(self.observed.values()))
        self.judging = list(fitting(first.program, samples.held_back))
        if not self.judging:
            raise UsageError(
                f"calibrate: to try settings 1 in {round(1 / HELD_BACK_SHARE)} samples is held back; there are fewer.",
                hint="Give more samples, or name a method, such as mse.",
            )
        with torch.no_grad():
            self.expected = [feed(first.program, inputs) for inputs in stoppable(self.judging)]
        self.samples_run = sum(map(sample_count, self.judging))
        # What equalization mends needs no higher precision: each form has layers of its own.
        kept = {equalized: _kept(options, observed, samples) for equalized, observed in self.observed.items()}
        self.kept = {equalized: layers for equalized, (layers, _) in kept.items()}
        self.samples_for_sensitivity = sum(count for _, count in kept.values())

    def best(self) -> Settled:
        """The best settings.

        Raises:
            NumericMismatchError: By none of them the outputs have an error that is finite.
        """
        trials = {}
        for equalized, observed in self.observed.items():
            for method in self.methods:
                each = replace(observed, method=RangeMethod(method, self.options.percentile))
                settings = replace(self.options, method=method, equalize=equalized)
                words = setting_words(settings.method_text, equalized)
                trials[words] = (settings, each, self._judged(words, each.quantized(self.kept[equalized])))
        if not self.tried:
            raise NumericMismatchError(
                f"calibrate: by none of {self.trials} settings that were tried the network's outputs can be compared "
                "with those in floating point: they are not finite, or these are all zero.",
                hint="Look at the outputs for some of the data, or keep layers in higher precision: keep=...",
            )
        words = min(self.tried, key=self.tried.__getitem__)
        settings, observed, program = trials[words]
        if settings.rounding is None:
            inputs = few(observed.program, self.samples.looked_at)
            corrected = correct_biases(observed.program, program, inputs).program
            self.samples_run += RUNS_OF_CORRECTION * sample_count(inputs)
            other = setting_words(settings.method_text, settings.equalize is True, corrected=True)
            self._judged(other, corrected)
            is_better = self.tried.get(other, math.inf) < self.tried[words]
            settings = replace(settings, rounding="corrected" if is_better else "nearest")
        return self._settled(settings, observed)

    def _settled(self, settings: Calibrate, observed: ObservedProgram) -> Settled:
        equalized = settings.equalize is True
        channels = self.channels[equalized]
        settings = replace(settings, smooth=settings.smooth if channels.smoothed else None)
        unchanged = None
        if settings.smooth is None and False in self.observed:
            unchanged = replace(self.observed[False], method=observed.method)
        return Settled(
            options=settings,
            observed=observed,
            kept=self.kept[equalized],
            tried=self.tried,
            held_back=sum(map(sample_count, self.judging)),
            before=self.observing.before(settings, channels, unchanged),
            channels=channels,
            samples_run=self.samples_run + self.observing.samples_run,
            samples_for_sensitivity=self.samples_for_sensitivity,
        )

    def _judged(self, words: str, program: Program) -> Program:
        """The program itself, once the error of its outputs is noted where that is finite."""
        error = output_error(program, self.judging, self.expected)
        self.trials, self.samples_run = self.trials + 1, self.samples_run + sum(map(sample_count, self.judging))
        if math.isfinite(error):
            self.tried[words] = error
        total = len(self.observed) * len(self.methods) + (self.options.rounding is None)
        self.progress(self.trials, total, f"{words}: error of the outputs {error:.2g}")
        return program


def _methods(form: Form) -> tuple[MethodName, ...]:
    """The ways of choosing ranges that are tried: in INT4 there are no ranges, and FP8's are clipped far by entropy."""
    if form == "int4":
        return (_PLAIN,)
    return tuple(method for method in RANGE_METHODS if (form, method) != ("float8", "entropy"))
