"""Whether labelled data are what a trained network was trained on: likely mistakes in their preparation, in words.

Two things tell. The first batch norm's running statistics say what its inputs looked like in training: the change of
the inputs that brings them closest to it is found, and if it is a large one it names the mistake. And where a change of
the inputs or of the class numbers lifts the accuracy surely, by more than four standard errors of a paired comparison,
and the network knows the classes with it, the data are not as the network knows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prunec.calibration.data import Data
from prunec.calibration.first_norm import FirstNorm, is_untrained
from prunec.calibration.part_check import SAMPLES, ExaminedPart, Finding
from prunec.calibration.trials import Examiner
from prunec.passes.discrete import numbers_of_things
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown, known
from prunec.runtime.evaluate import Metric, top1

#: Share of the test samples that may also be training samples.
_MOST_REPEATED = 0.05


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
    examiner, norm = Examiner(program, metric), FirstNorm.of(program)
    changeable = not any(numbers_of_things(program))
    parts = [
        ExaminedPart.of(name, split, examiner, norm, changeable)
        for name, split in (("training", data.train), ("test", data.test))
    ]
    mistakes = [(part, finding) for part in parts if (finding := part.finding()) is not None]
    return Plausibility(SAMPLES, parts[-1].distance, (*_merged(mistakes or _of_others(parts)), *_repeated(data)))


def can_be_judged(program: Program, data: Data) -> bool:
    """Whether a network takes one input of numbers, in batches of any size, and the data give just that."""
    first, _ = next(iter(data.train.batches(1)))
    takes = len(program.inputs) == 1 and not program.inputs[0].is_whole and program.batch_is_dynamic
    return takes and isinstance(first, Tensor)


def _of_others(parts: Sequence[ExaminedPart]) -> list[tuple[ExaminedPart, Finding]]:
    """Parts whose labels belong to other samples, where the network knows the rest, or is sure of answers to all parts.

    A network that is sure of a part of its answers and knows nothing has hardly learned.
    """
    mistaken = [(part, finding) for part in parts if (finding := part.labels_of_others()) is not None]
    accused = [part for part, _ in mistaken]
    return mistaken if all(part in accused or part.is_known for part in parts) else []


def _merged(findings: Sequence[tuple[ExaminedPart, Finding]]) -> list[str]:
    """One sentence for a mistake in both parts, with the numbers of the last."""
    parts: dict[str, list[str]] = {}
    for part, finding in findings:
        parts.setdefault(finding.mistake, []).append(part.name)
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
