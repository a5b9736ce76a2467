"""The request of a compile and the facts of its stages, as frozen values."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.compiler.facts.step_facts import StepCost as StepCost
    from prunec.compiler.facts.step_facts import StepInput as StepInput
    from prunec.compiler.facts.step_facts import StepOutput as StepOutput
    from prunec.passes.base import Aim as Aim

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        **dict.fromkeys(("StepCost", "StepInput", "StepOutput"), "prunec.compiler.facts.step_facts"),
        "Aim": "prunec.passes.base",
    },
)
