"""The cost model of a compile: read from a file, else measured where the target's engine runs, else a roofline."""

import time
from pathlib import Path

from prunec.compiler.facts.costs import Costs
from prunec.compiler.facts.request import Request
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.stages.stored_choices import hardware_and_engine, store_costs, stored_costs
from prunec.passes.costs.cost_model import CostKey
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.layers import check_dense
from prunec.passes.errors import UsageError
from prunec.passes.patterns.eligibility import eligibility
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.cost_file import check_key, read_costs
from prunec.runtime.costs.measuring import measure_costs
from prunec.runtime.costs.roofline import roofline_costs
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.network_ranges import ranges_words, with_network_ranges


def needs_costs(pipeline: Pipeline) -> bool:
    """Whether a step of a pipeline has a goal in time."""
    return any(options.needs_costs for options in pipeline.of(PruneFilters))


def costs_of(request: Request, state_folder: Path | None) -> Costs | None:
    """The cost model of a compile; None where neither a step nor the settings ask for one: see `cost_model`."""
    is_asked = request.settings.cost_model is not None or needs_costs(request.pipeline)
    return cost_model(request, state_folder) if is_asked else None


def cost_model(request: Request, state_folder: Path | None = None) -> Costs:
    """The cost model of a request, the same in all processes: see `known_costs`, of which arguments and errors are.

    Raises:
        UsageError: Nothing tells what widths cost on the target.
    """
    costs = known_costs(request, state_folder)
    if isinstance(costs, Unknown):
        raise UsageError(
            f"Nothing tells the times of layers on {request.target}: {costs.reason}",
            hint="Run this on the device, or measure a cost model there (prunec measure-costs) for --cost-model FILE.",
        )
    return costs


def known_costs(request: Request, state_folder: Path | None = None) -> Costs | Unknown:
    """What tells the times of a request's layers, the same in all processes; why nothing does where that is so.

    Args:
        request: The request.
        state_folder: Folder that keeps a model that is measured, for a compile that is resumed; None for none.

    Raises:
        UsageError: A file's model is of something else.
        InputError: A file holds no cost model, or that of another network.
        PrunecError: The measurement can't be done.
    """
    if request.settings.cost_model is not None:
        model = read_costs(request.settings.cost_model)
        check_key(model, _key_here(request, model.key))
        check_dense(model.layers, work_of(request.dense))
        return Costs(model, from_file=True)
    if runs_here(request):
        measured = Processes.join().from_main(_measured(request, state_folder) if is_main() else None)
        assert measured is not None, "the first process measures"
        return measured
    roofline = roofline_costs(request.target, request.settings.latency_batch, _sparse_weights(request))
    return roofline if isinstance(roofline, Unknown) else Costs(roofline)


def _sparse_weights(request: Request) -> frozenset[str]:
    """Names of the weights that the pipeline puts 2:4 on, at widths that can hold it."""
    steps = request.pipeline.of(Sparsify) if request.target.sparse else []
    layers = (e for step in steps if step.pattern == TWO_FOUR for e in eligibility(request.dense, step.ignore))
    return frozenset(layer.weight for layer in layers if layer.asked)


def runs_here(request: Request) -> bool:
    """Whether the engine of a compile can be built and run on this machine."""
    kind = preferred_engine(request.target, request.settings.engine_options)
    with ENGINES.blame(kind.name):
        is_available = kind.unavailable(request.target, request.settings.engine_options) is None
        return is_available and kind.runs_here(request.target)


def _key_here(request: Request, stored: CostKey) -> CostKey:
    """What a stored model must hold for; hardware and engine are its own where the target's engine doesn't run here."""
    settings, target = request.settings, request.target
    kind = preferred_engine(target, settings.engine_options)
    threads = settings.threads if kind.uses_threads else None
    hardware, engine = stored.hardware, stored.engine
    if runs_here(request):
        hardware, engine = hardware_and_engine(request)
    ranges = with_network_ranges(kind, request.dense, settings.engine_options).ranges
    return CostKey(str(target), hardware, engine, threads, settings.latency_batch, ranges_words(ranges))


def _measured(request: Request, state_folder: Path | None) -> Costs:
    settings, started = request.settings, time.perf_counter()
    if (stored := stored_costs(request, state_folder)) is not None:
        return Costs(stored)
    settings.progress.stage(f"measure what widths cost on {request.target}")
    model = measure_costs(
        request.dense,
        request.target,
        batch=settings.latency_batch,
        threads=settings.threads,
        seed=settings.seed,
        options=settings.engine_options,
        progress=settings.progress.stage,
    )
    store_costs(request, state_folder, model)
    return Costs(model, seconds=time.perf_counter() - started)
