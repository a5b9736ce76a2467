"""A step of a plug-in that removes residual branches, or layers that its plan doesn't tell of."""

from dataclasses import dataclass
from typing import ClassVar

from prunec.compiler.facts.step_facts import StepInput, StepOutput
from prunec.compiler.pipeline import StepKind
from prunec.passes.branch_removal import removal
from prunec.passes.plan import PruningPlan


@dataclass(frozen=True)
class Shallow:
    branches: tuple[str, ...] = ()
    told: int = 9

    name: ClassVar[str] = "shallow"


def run(options: Shallow, given: StepInput) -> StepOutput:
    program, removed = removal(given.program, options.branches)
    return StepOutput(program, plan=PruningPlan({}, removed_branches=removed[: options.told]))


STEP = StepKind(
    name="shallow", options=f"{__name__}:Shallow", runs=f"{__name__}:run", summary="fewer", measures_accuracy=True
)
