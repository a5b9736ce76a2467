"""Whether labelled data are what a trained network was trained on: likely mistakes in their preparation, in words.

Two things tell. The first batch norm's running statistics say what its inputs looked like in training: the change of
the inputs that brings them closest to it is found, and if it is a large one it names the mistake. And where a change of
the inputs or of the class numbers lifts the accuracy surely, by more than four standard errors of a paired comparison,
the data are not as the network knows them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor

from prunec.calibration.data import Data
from prunec.calibration.first_norm import FirstNorm, is_untrained
from prunec.calibration.input_changes import InputChange, Normalisation, arrangements, scale_mistake, scalings
from prunec.calibration.relabelling import relabellings
from prunec.calibration.splits import Preprocessing, SampleSplit, Split
from prunec.passes.feeding import feed, runner
from prunec.passes.outputs import only_tensor
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown, known
from prunec.runtime.evaluate import Metric, sample_scores, top1

#: Samples of each part that are looked at; fewer where they are large.
SAMPLES = 320
_MOST_VALUES = 2**26
_SIDE_BY_SIDE = 16
#: Samples whose statistics are compared, and on which changes are tried first.
_FOR_STATISTICS, _FIRST = 96, 80
#: Distance from the first batch norm's statistics, in its deviations, above which inputs are suspect.
_SUSPECT = 0.5
#: Distance below which the scale is right.
_ALIKE = 0.2
#: Least lift of the accuracy by a change, and number of standard errors that it must be above.
_LEAST_LIFT, _SURE = 0.05, 4.0
#: Share of the test samples that may also be training samples.
_MOST_REPEATED = 0.05
#: Mean probability of the predicted classes from which on a network at chance is one that knows other labels.
_CONFIDENT = 0.7
#: Fewer samples say nothing of labels.
_FEWEST = 20


@dataclass(frozen=True)
class Plausibility:
    """What was found.

    Attributes:
        samples: Number of samples of each part that were looked at, at most.
        distance: Mean distance of the test inputs from what the first batch norm saw, in its standard deviations.
        findings: Sentences on likely mistakes; empty where there are none.
    """

    samples: int
    distance: float | Unknown
    findings: tuple[str, ...]


def check_plausibility(program: Program, data: Data, metric: Metric = top1) -> Plausibility | Unknown:
    """Look for mistakes in data that a trained network is to be measured and retrained on.

    Args:
        program: The trained network, with one input.
        data: The data.
        metric: The score of each sample; labels are looked at under top-1 only.

    Returns:
        What was found, or that the network was never trained, so that nothing can be told.
    """
    program = program.inference()
    if is_untrained(program):
        return Unknown("the network was never trained: its batch norms are at mean 0 and variance 1.")
    norm = FirstNorm.of(program)
    parts = [
        _Part.of(name, split, program, metric, norm) for name, split in (("training", data.train), ("test", data.test))
    ]
    findings = _merged([(part.name, finding) for part in parts if (finding := part.finding()) is not None])
    return Plausibility(SAMPLES, parts[-1].distance, (*findings, *_repeated(data)))


def can_be_judged(program: Program, data: Data) -> bool:
    """Whether a network takes one input of numbers, in batches of any size, and the data give just that."""
    first, _ = next(iter(data.train.batches(1)))
    takes = len(program.inputs) == 1 and not program.inputs[0].is_whole and program.batch_is_dynamic
    return takes and isinstance(first, Tensor)


@dataclass(frozen=True)
class _Finding:
    """A likely mistake, and the numbers that speak for it."""

    mistake: str
    numbers: str


def _merged(findings: Sequence[tuple[str, _Finding]]) -> list[str]:
    """One sentence for a mistake in both parts, with the numbers of the last."""
    parts: dict[str, list[str]] = {}
    for part, finding in findings:
        parts.setdefault(finding.mistake, []).append(part)
    numbers = {finding.mistake: finding.numbers for _, finding in findings}
    return [f"{' and '.join(parts[mistake])} data: {mistake} ({numbers[mistake]})" for mistake in parts]


def _repeated(data: Data) -> list[str]:
    """Whether more of the test samples are training samples than repeat within the training data."""
    share, usual = known(data.test_repeats_train), known(data.train_repeats)
    if share is None or usual is None or share <= max(_MOST_REPEATED, 2 * usual):
        return []
    return [
        f"test data: {100 * share:.0f} % of the samples are training samples, too: one source may be named for both, "
        "or the data were divided after samples had been copied"
    ]


@dataclass(frozen=True, eq=False)
class _Part:
    """A sample of one part of the data, in random order, and the scores of the network on it."""

    name: str
    inputs: Tensor
    labels: Tensor
    given: Preprocessing
    outputs: Tensor | None
    scores: Tensor
    score: Callable[[Tensor, Tensor], Tensor]
    norm: FirstNorm | None
    judges_labels: bool

    @classmethod
    def of(cls, name: str, split: Split, program: Program, metric: Metric, norm: FirstNorm | None) -> "_Part":
        inputs, labels = _sample(split)
        outputs: list[Tensor | None] = []

        def noted(batch: Tensor) -> Any:
            result = feed(program, batch)
            outputs.append(only_tensor(result))
            return result

        given = split.preprocessing if isinstance(split, SampleSplit) else Preprocessing(torch.zeros(1), torch.ones(1))
        scores = _scored(noted, metric, inputs, labels)
        single = [each for each in outputs if each is not None and each.ndim == 2]
        joined = torch.cat(single) if len(single) == len(outputs) else None
        judges = metric is top1 and joined is not None and joined.shape[1] > int(labels.max())
        return cls(name, inputs, labels, given, joined, scores, partial(_scored, runner(program), metric), norm, judges)

    @cached_property
    def distance(self) -> float | Unknown:
        if self.norm is None:
            return Unknown("the network has no batch norm behind its input.")
        return self.norm.distance(self.inputs[:_FOR_STATISTICS])

    def finding(self) -> _Finding | None:
        """The mistake that is found, or else nothing: one mistake hides others."""
        judges_labels = self.judges_labels and len(self.labels) >= _FEWEST
        if judges_labels and bool((self.labels == self.labels[0]).all()):
            return _Finding("all samples are of one class, and an accuracy on them says nothing", f"{self.labels[0]}")
        if (scale := self._scale()) is not None:
            return scale
        if float(self.scores.mean()) > 1 - _LEAST_LIFT:
            return None
        lifts = [*self._lifts_of_inputs(), *(self._lifts_of_labels() if judges_labels else ())]
        if lifts:
            mistake, scores = max(lifts, key=lambda lift: round(float(lift[1].double().mean()) / _LEAST_LIFT))
            return _Finding(mistake, self._lift(scores))
        return self._at_chance() if judges_labels else None

    def _scale(self) -> _Finding | None:
        """What the first batch norm says of the scale of the inputs."""
        inputs, distance = self.inputs[:_FOR_STATISTICS], known(self.distance)
        if self.norm is None or distance is None or distance < _SUSPECT:
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
        judged = [(expected, self.score(expected(stored), self.labels)) for expected in close]
        if not judged:
            return None
        expected, scores = max(judged, key=lambda each: float(each[1].double().mean()))
        if _surely(self.scores - scores):  # they work better as they are
            return None
        mistake, numbers = scale_mistake(expected, inputs, self.given)
        return _Finding(mistake, f"{numbers}; {self._lift(scores)}")

    def _lifts_of_inputs(self) -> Iterator[tuple[str, Tensor]]:
        """Mistakes whose undoing lifts the accuracy surely, and the scores without them, the simplest first."""
        changes: list[InputChange] = list(arrangements(self.inputs, self.given)) if self.labels.ndim == 1 else []
        if (known(self.distance) or 1) > _ALIKE:
            changes += scalings(self.inputs, self.given)
        for change in changes:
            changed = change.undo(self.inputs)
            first = self.score(changed[:_FIRST], self.labels[:_FIRST]) - self.scores[:_FIRST]
            if float(first.mean()) > _LEAST_LIFT / 2:  # a look at some samples spares the most work
                scores = self.score(changed, self.labels)
                if _surely(scores - self.scores):
                    yield change.mistake, scores

    def _lifts_of_labels(self) -> Iterator[tuple[str, Tensor]]:
        assert self.outputs is not None
        for relabelling in relabellings(self.outputs.argmax(1), self.labels, self.outputs.shape[1]):
            if _surely(relabelling.scores - self.scores):
                yield f"labels mean other classes than the network's outputs: {relabelling.words}", relabelling.scores

    def _at_chance(self) -> _Finding | None:
        """Whether the network is sure, gives many answers, and is right no more often than by chance."""
        assert self.outputs is not None
        predicted, probabilities = self.outputs.argmax(1), self.outputs.softmax(1).max(1).values
        chance = float(torch.bincount(self.labels).max()) / len(self.labels)
        commonest = float(torch.bincount(predicted).max()) / len(predicted)
        accuracy, sure = float(self.scores.mean()), float(probabilities.mean())
        error = (chance * (1 - chance) / len(self.labels)) ** 0.5
        if accuracy > chance + 2 * error or sure < max(_CONFIDENT, chance + 0.3) or commonest > 0.5 + chance / 2:
            return None
        return _Finding(
            "the labels belong to other samples, or the data are other ones than those of training",
            f"the network gives its answers a probability of {sure:.2f} in the mean, and is right no more often than "
            f"by chance, {accuracy:.3f}",
        )

    def _lift(self, scores: Tensor) -> str:
        before, after = (float(each.double().mean()) for each in (self.scores, scores))
        return f"accuracy {before:.3f} as they are, {after:.3f} without that, on {len(self.labels)} samples"


def _surely(lifts: Tensor) -> bool:
    """Whether differences of scores, sample by sample, are surely above 0 in the mean, and large."""
    mean = float(lifts.double().mean())
    return mean > _LEAST_LIFT and mean > _SURE * float((lifts.double() ** 2).sum()) ** 0.5 / len(lifts)


def _scored(program: Callable[[Tensor], Any], metric: Metric, inputs: Tensor, labels: Tensor) -> Tensor:
    """The score of each sample, (N,)."""
    batches = zip(torch.split(inputs, _FIRST), torch.split(labels, _FIRST), strict=True)
    return torch.cat(list(sample_scores(program, batches, metric)))


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
