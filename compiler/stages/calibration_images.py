"""The images that a calibration looks at."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from prunec.calibration.splits import SampleSplit, Split
from prunec.compiler.facts.step_facts import StepInput
from prunec.passes.errors import UsageError
from prunec.passes.feeding import BatchInputs, arranged, part_of, sample_count
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.runtime.numerics import batch_sizes

#: Samples that run through the network at a time: the memory of their values doesn't grow with the number of images.
_BATCH = 32


class CalibrationImages:
    """The batches of a random sample of the training data, not augmented.

    Attributes:
        count: Number of the images, once all of them have been read.
        sha256: SHA-256 over the inputs then, sample by sample, each with the network's inputs in their order.
    """

    def __init__(self, program: Program, given: StepInput, samples: int) -> None:
        assert given.request.data is not None, "checked before any work: see `request_checks.check_needs`"
        self._program, self._split, self._seed = program, _not_augmented(given.request.data.train), given.seed
        self._samples, self.count, self.sha256 = samples, 0, ""

    def __iter__(self) -> Iterator[BatchInputs]:
        """Batches of the sample, whole ones where the network runs at one batch only.

        Raises:
            UsageError: That batch is larger than the sample.
        """
        (size,) = batch_sizes(self._program, (min(self._samples, _BATCH),))
        if size > self._samples:
            raise UsageError(
                f"calibrate: samples={self._samples} is less than the batch of {size}, at which the network runs.",
                hint=f"Give a multiple of {size}.",
            )
        least, left, found = 1 if self._program.batch_is_dynamic else size, self._samples, hashlib.sha256()
        for inputs, _ in stoppable(self._split.batches(size, epoch=0, seed=self._seed)):
            if left < least:
                break
            chosen = part_of(inputs, slice(left))
            self._hash(chosen, found)
            left -= sample_count(chosen)
            yield chosen
        self.count, self.sha256 = self._samples - left, found.hexdigest()

    def _hash(self, inputs: BatchInputs, found: "hashlib._Hash") -> None:
        tensors = arranged(self._program.inputs, inputs)
        for sample in range(sample_count(inputs)):
            for tensor in tensors:
                found.update(tensor[sample].contiguous().numpy().tobytes())


def _not_augmented(split: Split) -> Split:
    """The training data as networks see data when they are used."""
    return replace(split, augmentations=(), whole=None) if isinstance(split, SampleSplit) else split
