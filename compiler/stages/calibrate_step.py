"""The step that puts a network's values on the grids of INT8."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.calibration.quantization.observing import observe
from prunec.calibration.quantization.range_methods import RangeMethod, fallbacks, ranges_of
from prunec.calibration.splits import SampleSplit, Split
from prunec.compiler.facts.pass_facts import Calibrated
from prunec.compiler.facts.step_facts import StepCost, StepInput, StepOutput
from prunec.compiler.stages.pass_steps import check_masks
from prunec.passes.base import Aim
from prunec.passes.errors import UsageError
from prunec.passes.feeding import BatchInputs, arranged, part_of, sample_count
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.placement import KEPT, Placement, place
from prunec.passes.quantization.quantizers import quantize
from prunec.runtime.int8_form import form_of
from prunec.runtime.numerics import batch_sizes

#: Samples that run through the network at a time: the memory of their values doesn't grow with the number of images.
_BATCH = 32
#: Images of which the ranges of values hang on single ones.
_FEW = 16


def calibrate(options: Calibrate, given: StepInput) -> StepOutput:
    """Fold batch norms, look at the values of training inputs, and put values and weights on grids."""
    given.request.settings.progress.stage(f"calibrate by {options.method_text}, {options.samples} images")
    program = _prepared(given.program)
    placement = place(program, options.keep)
    aim = _aim(placement)
    if not placement.sites:
        return StepOutput(given.program, modified=False, cost=StepCost(), aim=aim)
    images = _Images(program, given, options.samples)
    quantized, odd = _on_grids(program, placement, images, options, form_of(given.request.target))
    check_masks(quantized)
    fact = Calibrated(options, images.count, images.sha256, placement.layers, odd)
    return StepOutput(quantized, fact=fact, cost=StepCost(samples=images.count), aim=aim, note=_note(fact))


def _prepared(program: Program) -> Program:
    """The same function with the weights that grids are made for."""
    return fold_batch_norms(program).program


def _on_grids(
    program: Program, placement: Placement, images: Iterable[BatchInputs], options: Calibrate, form: Form
) -> tuple[Program, Mapping[str, str]]:
    """The program on grids of the ranges that images give, and the tensors whose values tell none."""
    histograms = observe(program, placement, images)
    ranges = ranges_of(placement, histograms, RangeMethod(options.method, options.percentile), form)
    return quantize(program, placement, ranges, form), fallbacks(placement, histograms)


def _aim(placement: Placement) -> Aim:
    """The layers that weren't kept by name, and those of them that are on grids."""
    asked = [layer for layer in placement.layers if layer.reason != KEPT]
    reasons = dict.fromkeys(layer.reason for layer in asked if layer.reason)
    return Aim("layers in INT8", len(asked), sum(layer.is_quantized for layer in asked), ", ".join(reasons))


def _note(fact: Calibrated) -> str:
    """What the user should know of the values that were looked at, in sentences."""
    asked, said = fact.options.samples, list[str]()
    if fact.images < min(asked, _FEW):
        said.append(f"{fact.images} images were calibrated on: ranges hang on single ones; {_FEW} or more tell better.")
    elif fact.images < asked:
        said.append(f"{fact.images} of {asked} images were there.")
    if fact.fallbacks:
        name, oddity = next(iter(fact.fallbacks.items()))
        said.append(f"{len(fact.fallbacks)} tensors tell no range, or hardly any ({name}: {oddity}).")
    return " ".join(said)


class _Images:
    """The batches of a random sample of the training data, not augmented, counted and hashed as they are read."""

    def __init__(self, program: Program, given: StepInput, samples: int) -> None:
        assert given.request.data is not None, "checked before any work: see `request_checks.check_needs`"
        self._program, self._split, self._seed = program, _not_augmented(given.request.data.train), given.seed
        self._samples, self._hash, self.count = samples, hashlib.sha256(), 0

    def __iter__(self) -> Iterator[BatchInputs]:
        """Batches of the sample, whole ones where the network runs at one batch only.

        Raises:
            UsageError: That batch is larger than the sample.
        """
        self._hash, self.count = hashlib.sha256(), 0
        (size,) = batch_sizes(self._program, (min(self._samples, _BATCH),))
        if size > self._samples:
            raise UsageError(
                f"calibrate: samples={self._samples} is less than the batch of {size}, at which the network runs.",
                hint=f"Give a multiple of {size}.",
            )
        least = 1 if self._program.batch_is_dynamic else size
        for inputs, _ in stoppable(self._split.batches(size, epoch=0, seed=self._seed)):
            if self._samples - self.count < least:
                return
            chosen = part_of(inputs, slice(self._samples - self.count))
            self._book(chosen)
            yield chosen

    def _book(self, inputs: BatchInputs) -> None:
        tensors = arranged(self._program.inputs, inputs)
        for sample in range(sample_count(inputs)):
            for tensor in tensors:
                self._hash.update(tensor[sample].contiguous().numpy().tobytes())
        self.count += sample_count(inputs)

    @property
    def sha256(self) -> str:
        """SHA-256 over the inputs that were read, sample by sample, each with the network's inputs in their order."""
        return self._hash.hexdigest()


def _not_augmented(split: Split) -> Split:
    """The training data as networks see data when they are used."""
    return replace(split, augmentations=(), whole=None) if isinstance(split, SampleSplit) else split
