"""The request of one compile. It never changes; stages read it and add facts."""

from dataclasses import dataclass

from prunec.calibration.data import Data
from prunec.compiler.facts.settings import Settings
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.recovery.objective import Objective
from prunec.passes.program import Program
from prunec.runtime.target import Target


@dataclass(frozen=True)
class Request:
    """A request to compile a network.

    Attributes:
        dense: The program to compile, in its inference form.
        target: Target to compile for.
        pipeline: The steps to take.
        data: Labelled data for recovery and accuracy; None where there are none.
        objective: The loss of the training and the metric of accuracy.
        settings: Seeds, measurements, gates.
    """

    dense: Program
    target: Target
    pipeline: Pipeline
    data: Data | None
    objective: Objective
    settings: Settings
