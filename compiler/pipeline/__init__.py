"""The steps of a compile: as text, as recipe tables, and as objects."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.compiler.pipeline.pipeline import Pipeline as Pipeline
    from prunec.compiler.pipeline.pipeline import Repeat as Repeat
    from prunec.compiler.pipeline.pipeline import Step as Step
    from prunec.compiler.pipeline.pipeline import make_step as make_step
    from prunec.compiler.pipeline.pipeline import parse_pipeline as parse_pipeline
    from prunec.compiler.pipeline.step_kind import After as After
    from prunec.compiler.pipeline.step_kind import StepKind as StepKind
    from prunec.compiler.pipeline.step_kind import needs_inputs as needs_inputs
    from prunec.compiler.pipeline.step_kind import needs_labels as needs_labels

_PIPELINE, _KIND = "prunec.compiler.pipeline.pipeline", "prunec.compiler.pipeline.step_kind"
__getattr__, __dir__ = lazy_attributes(
    __name__,
    dict.fromkeys(("Pipeline", "Repeat", "Step", "make_step", "parse_pipeline"), _PIPELINE)
    | dict.fromkeys(("After", "StepKind", "needs_inputs", "needs_labels"), _KIND),
)
