"""Refusals of orders of steps that no plan could tell of, since layers are decomposed before. Imports no torch."""

from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.passes.errors import UsageError
from prunec.passes.low_rank import Decompose
from prunec.passes.permute import Permute
from prunec.passes.prune_filters import PruneFilters


def check_decompositions(pipeline: Pipeline) -> None:
    """Refuse before any work what removes, reorders or decomposes behind a pruning that decomposes as well.

    Raises:
        UsageError: There is such a step.
    """
    steps = pipeline.steps
    joint = [isinstance(step.options, PruneFilters) and step.options.allocation == "joint" for step in steps]
    for later in steps[joint.index(True) + 1 :] if any(joint) else ():
        if isinstance(later.options, PruneFilters | Permute | Decompose):
            raise UsageError(
                f"The pipeline has {later.name} behind prune-filters with allocation=joint, which decomposes layers: a "
                "plan tells of slices of layers as the network has them, and then of ranks.",
                hint=f"Leave {later.name} out, or put it before.",
            )
