"""One part of the data as a trained network knows it, or doesn't: the likeliest mistake in it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor

from prunec.calibration.first_norm import FirstNorm
from prunec.calibration.input_changes import InputChange, Normalisation, arrangements, scale_mistake, scalings
from prunec.calibration.knowledge import Knowledge, by_class
from prunec.calibration.relabelling import relabellings
from prunec.calibration.splits import Preprocessing, SampleSplit, Split
from prunec.calibration.trials import Answers, Examiner
from prunec.passes.interruption import stoppable
from prunec.passes.unknown import Unknown, known
from prunec.runtime.evaluate import top1

#: Samples of each part that are looked at; fewer where they are large.
SAMPLES = 320
_MOST_VALUES = 2**26
_SIDE_BY_SIDE = 16
#: Samples whose statistics are compared, and on which changes are tried first.
_FOR_STATISTICS, _FIRST = 96, 80
#: Distance from the first batch norm's statistics, in its deviations, above which inputs are suspect.
_SUSPECT = 0.5
#: Distance below which the scale is right, and one from which on the inputs are others where the answers are wrong.
_ALIKE, _FAR = 0.2, 1.0
#: Share of the largest input below which differences between samples are rounding.
_THE_SAME = 1e-6
#: Least lift of the accuracy by a change, and number of standard errors that it must be above.
_LEAST_LIFT, _SURE = 0.05, 4.0
#: Fewer samples say nothing of labels.
_FEWEST = 20
_PLAIN = Preprocessing(torch.zeros(1), torch.ones(1))


@dataclass(frozen=True)
class Finding:
    """A likely mistake, and the numbers that speak for it."""

    mistake: str
    numbers: str


@dataclass(frozen=True, eq=False)
class ExaminedPart:
    """A sample of one part of the data, in random order, and what the network says of it.

    Attributes:
        is_changeable: Whether the inputs are quantities, of which something else may be made.
    """

    name: str
    split: Split
    inputs: Tensor
    labels: Tensor
    answers: Answers
    examiner: Examiner
    norm: FirstNorm | None
    is_changeable: bool

    @classmethod
    def of(
        cls, name: str, split: Split, examiner: Examiner, norm: FirstNorm | None, is_changeable: bool
    ) -> "ExaminedPart":
        inputs, labels = _sample(split)
        return cls(name, split, inputs, labels, examiner.answers(inputs, labels), examiner, norm, is_changeable)

    @cached_property
    def given(self) -> Preprocessing:
        return self.split.preprocessing if isinstance(self.split, SampleSplit) else _PLAIN

    @cached_property
    def distance(self) -> float | Unknown:
        if self.norm is None:
            return Unknown("the network has no batch norm behind its input.")
        return self.norm.distance(self.inputs[:_FOR_STATISTICS])

    @cached_property
    def knowledge(self) -> Knowledge | None:
        """None where labels aren't judged: that needs top-1, one row of outputs for each sample, and some samples."""
        outputs = self.answers.outputs
        if self.examiner.metric is not top1 or len(self.labels) < _FEWEST or outputs is None:
            return None
        return Knowledge(outputs, self.labels) if outputs.shape[1] > int(self.labels.max()) else None

    @property
    def is_known(self) -> bool:
        return self.knowledge is not None and self.knowledge.is_there()

    def finding(self) -> Finding | None:
        """The mistake that is found, or else nothing: one mistake hides others."""
        if self.knowledge is not None and self._is_of_one_class():
            return Finding("all samples are of one class, and an accuracy on them says nothing", f"{self.labels[0]}")
        if self._is_of_one_input():
            return Finding("all inputs are the same", f"{len(self.inputs)} samples were looked at")
        if (scale := self._scale()) is not None:
            return scale
        if float(self.answers.scores.mean()) > 1 - _LEAST_LIFT:
            return None
        lifts = [*self._lifts_of_inputs(), *self._lifts_of_labels()]
        if lifts:
            mistake, scores = max(lifts, key=lambda lift: round(float(lift[1].double().mean()) / _LEAST_LIFT))
            return Finding(mistake, self._lift(scores))
        return self._other_inputs()

    def labels_of_others(self) -> Finding | None:
        """Whether the network is sure, gives many answers, and is right no more often than by chance."""
        if self.knowledge is None or not self.knowledge.is_of_others():
            return None
        return Finding(
            "the labels belong to other samples, or the data are other ones than those of training",
            f"the network gives its answers a probability of {self.knowledge.sureness:.2f} in the mean, and is right "
            f"no more often than by chance, {self.knowledge.accuracy:.3f}",
        )

    def _is_of_one_class(self) -> bool:
        """Whether all samples of the part are: those of a rare class may be among the others."""
        first = self.labels[0]
        if bool((self.labels != first).any()):
            return False
        return all(bool((labels == first).all()) for _, labels in stoppable(self.split.batches(SAMPLES)))

    def _is_of_one_input(self) -> bool:
        furthest = float((self.inputs - self.inputs[:1]).abs().max())
        return len(self.inputs) >= _FEWEST and furthest <= _THE_SAME * float(self.inputs.abs().max())

    def _scale(self) -> Finding | None:
        """What the first batch norm says of the scale of the inputs."""
        inputs, distance = self.inputs[:_FOR_STATISTICS], known(self.distance)
        if self.norm is None or distance is None or distance < _SUSPECT or not self.is_changeable:
            return None
        moments = self.norm.moments(self.given.stored(inputs))
        if moments is None:
            return None
        stored = self.given.stored(self.inputs)
        close = [
            Normalisation(-change.shift / change.scale, 1 / change.scale)
            for change, left in self.norm.fits(moments)
            if left < distance / 2
        ]
        tried = [(expected, self.examiner.tried(expected(stored), self.labels)) for expected in close]
        judged = [
            (expected, answers.scores) for expected, answers in tried if answers and not self._is_lost_on(answers)
        ]
        if not judged:
            return None
        expected, scores = max(judged, key=lambda each: float(each[1].double().mean()))
        lost = self.answers.scores - scores
        if _surely(lost) or self._by_class(lost) > _LEAST_LIFT:  # they work better as they are
            return None
        mistake, numbers = scale_mistake(expected, inputs, self.given)
        return Finding(mistake, f"{numbers}; {self._lift(scores)}")

    def _lifts_of_inputs(self) -> Iterator[tuple[str, Tensor]]:
        """Mistakes whose undoing lifts the accuracy surely, and the scores without them, the simplest first."""
        if not self.is_changeable:
            return
        changes: list[InputChange] = list(arrangements(self.inputs, self.given)) if self.labels.ndim == 1 else []
        if (known(self.distance) or 1) > _ALIKE:
            changes += scalings(self.inputs, self.given)
        for change in changes:
            changed = change.undo(self.inputs)
            first = self.examiner.tried(changed[:_FIRST], self.labels[:_FIRST])
            # A look at some samples spares the most work.
            if first is None or float((first.scores - self.answers.scores[:_FIRST]).mean()) <= _LEAST_LIFT / 2:
                continue
            answers = self.examiner.tried(changed, self.labels)
            if answers is not None and self._explains(answers):
                yield change.mistake, answers.scores

    def _explains(self, changed: Answers) -> bool:
        """Whether a change of the inputs surely lifts the accuracy, and not by saying a common class more often."""
        lifts = changed.scores - self.answers.scores
        if self.knowledge is None or changed.outputs is None:
            return _surely(lifts)
        knows = Knowledge(changed.outputs, self.labels).is_there()
        return _surely(lifts) and self._by_class(lifts) > _LEAST_LIFT and knows

    def _is_lost_on(self, changed: Answers) -> bool:
        """Whether changed inputs tell the network nothing, so that what was changed isn't all that is wrong."""
        if self.knowledge is None or changed.outputs is None:
            return False
        return Knowledge(changed.outputs, self.labels).is_missing()

    def _lifts_of_labels(self) -> Iterator[tuple[str, Tensor]]:
        if self.knowledge is None:
            return
        for relabelling in relabellings(self.knowledge.outputs, self.labels):
            scores = (relabelling.labels == self.knowledge.predicted).float()
            if _surely(scores - self.answers.scores):
                yield f"labels mean other classes than the network's outputs: {relabelling.words}", scores

    def _other_inputs(self) -> Finding | None:
        """Whether the inputs are far from those of the training, and the network can do nothing with them."""
        distance = known(self.distance)
        if distance is None or distance < _FAR or self.knowledge is None or not self.knowledge.is_missing():
            return None
        return Finding(
            "the inputs are others than those of the training, and no other scale or order of them explains it",
            f"what the first batch norm is given is {distance:.2f} standard deviations in the mean from what it saw, "
            f"and the network is right no more often than by chance, {self.knowledge.accuracy:.3f}",
        )

    def _by_class(self, values: Tensor) -> float:
        """Mean over classes of the mean over samples, or over samples where the labels aren't classes."""
        return float(values.mean()) if self.knowledge is None else by_class(values, self.labels)

    def _lift(self, scores: Tensor) -> str:
        before, after = (float(each.double().mean()) for each in (self.answers.scores, scores))
        return f"accuracy {before:.3f} as they are, {after:.3f} without that, on {len(self.labels)} samples"


def _surely(lifts: Tensor) -> bool:
    """Whether differences of scores, sample by sample, are surely above 0 in the mean, and large."""
    mean = float(lifts.double().mean())
    return mean > _LEAST_LIFT and mean > _SURE * float((lifts.double() ** 2).sum()) ** 0.5 / len(lifts)


def _sample(split: Split) -> tuple[Tensor, Tensor]:
    """Some samples from places that are spread over all of them, in random order."""
    first, _ = next(iter(split.batches(1)))
    assert isinstance(first, Tensor), "other data aren't judged: see `can_be_judged`"
    count = max(_SIDE_BY_SIDE, min(SAMPLES, _MOST_VALUES // first.numel()))
    places, wanted = len(split) // _SIDE_BY_SIDE, count // _SIDE_BY_SIDE
    batches: Iterable[tuple[Any, Tensor]] = split.batches(SAMPLES)
    if places > wanted:
        batches = (
            batch
            for number in range(wanted)
            for batch in islice(split.batches(_SIDE_BY_SIDE, first=number * places // wanted), 1)
        )
    inputs, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    order = torch.randperm(len(labels), generator=Generator().manual_seed(0))
    return inputs[order], labels[order]
