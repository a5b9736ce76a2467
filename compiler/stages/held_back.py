"""What quantized networks lose on samples that are held back from training, against the network in floating point.

They are the validation data: nothing is trained on them, and of the test data nothing is chosen by.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.calibration.quantization.calibrate import LossLimit
from prunec.calibration.quantization.output_error import OutputError
from prunec.compiler.facts.layer_choice import MeasuredLoss
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.recovery.scores import Estimate
from prunec.passes.feeding import BatchInputs, feed, runner
from prunec.passes.interruption import stoppable
from prunec.passes.program import Program
from prunec.runtime.evaluate import EVALUATION_BATCH, sample_scores

#: Samples that a network is judged on at most.
MOST_JUDGED = 4 * EVALUATION_BATCH


class Judge:
    """Judges networks by what they lose of a measure, all on the same samples.

    Args:
        limit: Tells the measure.
        given: The step's input, with the data, the metric and the seed that draws samples where there are many.
        reference: The network in floating point.
    """

    def __init__(self, limit: LossLimit, given: StepInput, reference: Program) -> None:
        request = given.request
        assert request.data is not None, "checked before any work: see `request_checks.check_limit`"
        self._split, self._seed, self._metric = request.data.validation, given.seed, request.objective.metric
        self._reference, self.samples = reference, min(len(self._split), MOST_JUDGED)
        self._scores = self._scored(reference) if limit.measure == "max_drop_points" else None

    def loss(self, program: Program) -> MeasuredLoss:
        """What a program loses."""
        if self._scores is None:
            return MeasuredLoss(self._output_error(program), None)
        lost = Estimate.paired(self._scores, self._scored(program))
        # Rounded, so that 3 of 1000 are 0.3 points and not a hair more.
        return MeasuredLoss(round(lost.points, 9), lost.margin)

    def _batches(self) -> Iterator[tuple[BatchInputs, Tensor]]:
        if self.samples == len(self._split):
            return stoppable(self._split.batches(EVALUATION_BATCH))
        batches = self._split.batches(EVALUATION_BATCH, epoch=0, seed=self._seed)
        return stoppable(islice(batches, MOST_JUDGED // EVALUATION_BATCH))

    def _scored(self, program: Program) -> NDArray[np.float64]:
        scores = sample_scores(runner(program), self._batches(), self._metric)
        return torch.cat([each.double() for each in scores]).numpy()

    @torch.no_grad()
    def _output_error(self, program: Program) -> float:
        """The error over all samples; both networks run on one batch after the other, which bounds memory."""
        error = OutputError()
        for inputs, _ in self._batches():
            error.add(feed(program, inputs), feed(self._reference, inputs))
        return error.value
