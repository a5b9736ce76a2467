"""The cost model of a compile: read from a file, else measured where the target's engine runs, else a roofline."""

import time

from prunec.compiler.facts.costs import Costs
from prunec.compiler.facts.request import Request
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.recovery.processes import Processes
from prunec.passes.errors import UsageError
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.measuring import measure_costs
from prunec.runtime.costs.roofline import roofline_costs
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.names import ENGINES


def needs_costs(pipeline: Pipeline) -> bool:
    """Whether a step of a pipeline has a goal in time."""
    return any(options.needs_costs for options in pipeline.of(PruneFilters))


def costs_of(request: Request) -> Costs | None:
    """The cost model of a compile, the same in all processes; None where no step has a goal in time.

    Raises:
        PrunecError: There is none: see `cost_model`.
    """
    return cost_model(request) if needs_costs(request.pipeline) else None


def cost_model(request: Request) -> Costs:
    """The cost model of a request, the same in all processes.

    Raises:
        UsageError: There is no way to know what widths cost on the target.
        PrunecError: The measurement can't be done.
    """
    if runs_here(request):
        return Processes.join().from_main(_measured(request) if is_main() else None)
    target = request.target
    model = roofline_costs(target, request.settings.latency_batch)
    if isinstance(model, Unknown):
        raise UsageError(
            f"Nothing tells the times of layers on {target}: {model.reason}",
            hint="Run this on the device, or measure a cost model there (prunec measure-costs) for --cost-model FILE.",
        )
    return Costs(model)


def runs_here(request: Request) -> bool:
    """Whether the engine of a compile can be built and run on this machine."""
    kind = preferred_engine(request.target, request.settings.engine_options)
    with ENGINES.blame(kind.name):
        is_available = kind.unavailable(request.target, request.settings.engine_options) is None
        return is_available and kind.runs_here(request.target)


def _measured(request: Request) -> Costs:
    settings, started = request.settings, time.perf_counter()
    settings.progress.stage(f"measure what widths cost on {request.target}")
    model = measure_costs(
        request.dense,
        request.target,
        batch=settings.latency_batch,
        threads=settings.threads,
        seed=settings.seed,
        progress=settings.progress.note,
    )
    return Costs(model, seconds=time.perf_counter() - started)
