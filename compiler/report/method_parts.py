"""The papers that a compile's steps are from, and the groups of compression that it combines."""

from collections.abc import Iterator
from typing import Annotated, Any

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.pipeline.pipeline import Pipeline, Step
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.quantize_hook import Quantize
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.report.nulls import NullMeans
from prunec.compiler.report.report_part import Part
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.low_rank import decomposes
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify

PRUNING = "pruning"
LOW_RANK = "low-rank decomposition"
QUANTIZATION = "quantization"
DISTILLATION = "knowledge distillation"
#: The groups of compression, as "Why is the State of Neural Network Pruning so Confusing?" (Wang et al., 2023) lists
#: them. prunec does the first, and can combine it with the second to the fourth.
COMPRESSION_GROUPS = (
    PRUNING,
    QUANTIZATION,
    LOW_RANK,
    DISTILLATION,
    "compact design",
    "arithmetic complexity reduction",
)


class SourcePart(Part):
    """The paper that a criterion or a training hook is from, and prunec's reading of what the paper leaves open."""

    step: str
    name: str
    paper: str
    reading: Annotated[str | None, NullMeans("the paper leaves nothing open that changes a result")] = None


def source_parts(pipeline: Pipeline) -> tuple[SourcePart, ...]:
    """The papers of a pipeline's criteria and hooks, each once for a step."""
    return tuple(
        SourcePart(step=step.name, name=thing.name, paper=paper, reading=getattr(thing, "reading", "") or None)
        for step in pipeline.steps
        for thing in _named(step)
        if (paper := getattr(thing, "paper", ""))
    )


def compression_groups(pipeline: Pipeline) -> tuple[str, ...]:
    """The groups of compression that prunec's own steps in a pipeline are of, in the order of `COMPRESSION_GROUPS`."""
    taken = {group for step in pipeline.steps for group in _groups(step.options)}
    return tuple(group for group in COMPRESSION_GROUPS if group in taken)


def _named(step: Step) -> list[Any]:
    options = step.options
    if isinstance(options, PruneFilters):
        return [] if options.plan else [resolve(options.criterion)]
    if isinstance(options, Sparsify):
        return [resolve(options.criterion)]
    return list(load_hooks(options.hooks)) if isinstance(options, Recover) else []


def _groups(options: object) -> Iterator[str]:
    if isinstance(options, PruneFilters | Sparsify):
        yield PRUNING
    if decomposes(options):
        yield LOW_RANK
    if isinstance(options, Calibrate):
        yield QUANTIZATION
    if isinstance(options, Recover):
        if options.distill:
            yield DISTILLATION
        if any(isinstance(hook, Quantize) for hook in load_hooks(options.hooks)):
            yield QUANTIZATION
