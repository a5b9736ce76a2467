"""The compiler: loading, pipelines, recovery, bundles, reports, the command line; and the public API."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes
from prunec.runtime.offline import stay_offline

stay_offline()  # before anything imports accelerate

if TYPE_CHECKING:  # for type checkers; at run time the names are looked up when they are used
    from prunec.compiler.facts.settings import Settings as Settings
    from prunec.compiler.project.checkpoint import LoadedCheckpoint as LoadedCheckpoint
    from prunec.compiler.project.checkpoint import load_checkpoint as load_checkpoint
    from prunec.compiler.recovery.objective import Objective as Objective
    from prunec.compiler.report.report import Report as Report
    from prunec.compiler.stages.driver import compile_model as compile_model
    from prunec.passes.applying import apply_plan as apply_plan
    from prunec.passes.frontend import capture as capture
    from prunec.passes.program import Program as Program
    from prunec.runtime.target import Target as Target

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "LoadedCheckpoint": "prunec.compiler.project.checkpoint",
        "Objective": "prunec.compiler.recovery.objective",
        "Program": "prunec.passes.program",
        "Report": "prunec.compiler.report.report",
        "Settings": "prunec.compiler.facts.settings",
        "Target": "prunec.runtime.target",
        "apply_plan": "prunec.passes.applying",
        "capture": "prunec.passes.frontend",
        "compile_model": "prunec.compiler.stages.driver",
        "load_checkpoint": "prunec.compiler.project.checkpoint",
    },
)
