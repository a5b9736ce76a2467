"""The compiler: loading, pipelines, recovery, bundles, reports, the command line; and the public API."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:  # for type checkers; at run time the names are looked up when they are used
    from prunec.compiler.driver import compile_model as compile_model
    from prunec.compiler.loading import LoadedCheckpoint as LoadedCheckpoint
    from prunec.compiler.loading import load_checkpoint as load_checkpoint
    from prunec.compiler.report import Report as Report
    from prunec.passes.frontend import capture as capture
    from prunec.passes.plan import apply_plan as apply_plan
    from prunec.passes.program import Program as Program
    from prunec.runtime.target import Target as Target

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "LoadedCheckpoint": "prunec.compiler.loading",
        "Program": "prunec.passes.program",
        "Report": "prunec.compiler.report",
        "Target": "prunec.runtime.target",
        "apply_plan": "prunec.passes.plan",
        "capture": "prunec.passes.frontend",
        "compile_model": "prunec.compiler.driver",
        "load_checkpoint": "prunec.compiler.loading",
    },
)
