"""Refusals of orders of steps that no plan could tell of, since layers are decomposed before. Imports no torch."""

from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.passes.errors import UsageError
from prunec.passes.low_rank import Decompose, decomposes
from prunec.passes.permute import Permute
from prunec.passes.prune_filters import PruneFilters


def check_decompositions(pipeline: Pipeline) -> None:
    """Refuse before any work what removes, reorders or decomposes behind a step that decomposes.

    Raises:
        UsageError: There is such a step.
    """
    steps = pipeline.steps
    places = [place for place, step in enumerate(steps) if decomposes(step.options)]
    for later in steps[places[0] + 1 :] if places else ():
        if isinstance(later.options, PruneFilters | Permute | Decompose):
            raise UsageError(
                f"The pipeline has {later.name} behind {steps[places[0]]}, which decomposes layers: a plan tells of "
                "slices of layers as the network has them, and then of ranks.",
                hint=f"Leave {later.name} out, or put it before.",
            )
