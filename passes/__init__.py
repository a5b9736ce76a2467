"""Programs and the passes over them: capture, coupling analysis, filter pruning, 2:4 sparsity, the oracle."""

from prunec.passes.lazy import lazy_attributes

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Program": "prunec.passes.program",
        "capture": "prunec.passes.frontend",
        "analyse": "prunec.passes.coupling",
        "PruneFilters": "prunec.passes.prune_filters",
        "Sparsify": "prunec.passes.two_four",
        "PassResult": "prunec.passes.base",
        "PruningPlan": "prunec.passes.plan",
        "apply_plan": "prunec.passes.plan",
        "check_oracle": "prunec.passes.oracle",
        "OracleReport": "prunec.passes.oracle",
    },
)
