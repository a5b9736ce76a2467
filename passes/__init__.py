"""Programs and the passes over them: capture, coupling analysis, filter pruning, 2:4 sparsity, the oracle."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.passes.applying import apply_plan as apply_plan
    from prunec.passes.base import PassResult as PassResult
    from prunec.passes.coupling import Policy as Policy
    from prunec.passes.coupling import analyse as analyse
    from prunec.passes.errors import PrunecError as PrunecError
    from prunec.passes.fold import FoldParameters as FoldParameters
    from prunec.passes.frontend import capture as capture
    from prunec.passes.low_rank import Decompose as Decompose
    from prunec.passes.oracle import OracleReport as OracleReport
    from prunec.passes.oracle import check_oracle as check_oracle
    from prunec.passes.output_selection import select_outputs as select_outputs
    from prunec.passes.permute import Permute as Permute
    from prunec.passes.plan import PruningPlan as PruningPlan
    from prunec.passes.program import Program as Program
    from prunec.passes.prune_filters import PruneFilters as PruneFilters
    from prunec.passes.sparsify import Sparsify as Sparsify

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Program": "prunec.passes.program",
        "capture": "prunec.passes.frontend",
        "Policy": "prunec.passes.coupling",
        "analyse": "prunec.passes.coupling",
        "PrunecError": "prunec.passes.errors",
        "FoldParameters": "prunec.passes.fold",
        "PruneFilters": "prunec.passes.prune_filters",
        "Decompose": "prunec.passes.low_rank",
        "Permute": "prunec.passes.permute",
        "Sparsify": "prunec.passes.sparsify",
        "select_outputs": "prunec.passes.output_selection",
        "PassResult": "prunec.passes.base",
        "PruningPlan": "prunec.passes.plan",
        "apply_plan": "prunec.passes.applying",
        "check_oracle": "prunec.passes.oracle",
        "OracleReport": "prunec.passes.oracle",
    },
)
