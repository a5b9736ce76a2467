"""The images that a calibration looks at."""

import hashlib
from collections.abc import Iterator

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
        there: Number of images that there are of those that were asked for.
        at_once: Number of them that run together.
        count: Number of the images, once all of them have been read.
        sha256: SHA-256 over the inputs then, sample by sample, each with the network's inputs in their order.
    """

    def __init__(self, program: Program, given: StepInput, samples: int) -> None:
        assert given.request.data is not None, "checked before any work: see `request_checks.check_needs`"
        self._program, self._split = program, _shuffled(given.request.data.train, given.seed)
        self._samples, self.there, self.count, self.sha256 = samples, min(samples, len(self._split)), 0, ""
        (self.at_once,) = batch_sizes(program, (min(samples, _BATCH),))

    def __iter__(self) -> Iterator[BatchInputs]:
        """Batches of the sample, whole ones where the network runs at one batch only.

        Raises:
            UsageError: That batch is larger than the sample.
        """
        if self.at_once > self._samples:
            raise UsageError(
                f"calibrate: samples={self._samples} is less than the batch of {self.at_once}, at which the network "
                "runs.",
                hint=f"Give a multiple of {self.at_once}.",
            )
        least = self._program.batch_bounds[0] if self._program.batch_is_dynamic else self.at_once
        left, digest = self._samples, hashlib.sha256()
        for inputs, _ in stoppable(self._split.batches(self.at_once)):
            chosen = part_of(inputs, slice(left))
            if sample_count(chosen) < least:
                break
            self._hash(chosen, digest)
            left -= sample_count(chosen)
            yield chosen
            if not left:
                break
        self.count, self.sha256 = self._samples - left, digest.hexdigest()

    def _hash(self, inputs: BatchInputs, digest: "hashlib._Hash") -> None:
        tensors = arranged(self._program.inputs, inputs)
        for sample in range(sample_count(inputs)):
            for tensor in tensors:
                digest.update(tensor[sample].contiguous().numpy().tobytes())


def _shuffled(split: Split, seed: int) -> Split:
    """The training data as networks see data when they are used, in random order where they can be read so."""
    return split.shuffled(seed) if isinstance(split, SampleSplit) else split
