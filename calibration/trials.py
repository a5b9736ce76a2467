"""Runs of a network on inputs that ask something: it may not be able to run on them, and that is an answer, too."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prunec.passes.errors import InputError
from prunec.passes.feeding import runner
from prunec.passes.outputs import only_tensor
from prunec.passes.program import Program
from prunec.runtime.evaluate import Metric, sample_scores

#: Samples that run at once.
_BATCH = 80
#: What a network raises that looks up, checks or divides by values which it wasn't made for. It ran on others of the
#: same shape and type, so that nothing but values can be the cause.
_OF_VALUES = (IndexError, ValueError, RuntimeError, AssertionError, ArithmeticError)


class CannotRunError(Exception):
    """A network can't run on inputs of a trial."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of labelled samples.

    Attributes:
        scores: The metric's score of each sample, (N,).
        outputs: (N, classes), or None where the network gives something else than one row for each sample.
    """

    scores: Tensor
    outputs: Tensor | None


@dataclass(frozen=True)
class Examiner:
    """A network, and the metric that its outputs are scored by."""

    program: Program
    metric: Metric

    def answers(self, inputs: Tensor, labels: Tensor) -> Answers:
        """The answers to inputs (N, ...) as they are.

        Raises:
            InputError: The metric fails.
        """
        return self._answers(runner(self.program), inputs, labels)

    def tried(self, inputs: Tensor, labels: Tensor) -> Answers | None:
        """The answers to changed inputs (N, ...), and None where the network or the metric can't take them."""
        try:
            return self._answers(partial(tried, runner(self.program)), inputs, labels)
        except (CannotRunError, InputError):
            return None

    def _answers(self, run: Callable[[Tensor], Any], inputs: Tensor, labels: Tensor) -> Answers:
        rows: list[Tensor | None] = []

        def noted(batch: Tensor) -> Any:
            outputs = run(batch)
            row = only_tensor(outputs)
            rows.append(row if row is not None and row.ndim == 2 else None)
            return outputs

        batches = zip(torch.split(inputs, _BATCH), torch.split(labels, _BATCH), strict=True)
        scores = torch.cat(list(sample_scores(noted, batches, self.metric)))
        kept = [each for each in rows if each is not None]
        return Answers(scores, torch.cat(kept) if len(kept) == len(rows) else None)


def tried(network: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """What a network gives for inputs of a trial.

    Raises:
        CannotRunError: It can't run on these values.
    """
    try:
        return network(inputs)
    except _OF_VALUES as error:
        raise CannotRunError from error
