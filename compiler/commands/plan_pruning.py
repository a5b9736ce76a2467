"""``prunec plan``: what a pruning would bring on a target, and the plan that does it, before any training."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from prunec.compiler.commands.compile_checkpoint import prepare
from prunec.compiler.commands.compile_job import Job, Prepared
from prunec.compiler.commands.forecasting import Planned, forecast
from prunec.compiler.drawing.forecast_page import render_forecast
from prunec.compiler.facts.costs import Costs
from prunec.compiler.facts.forecast import Forecast
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.machine.writable import check_file_can_be_written
from prunec.compiler.project.project import Project, check_fit
from prunec.compiler.stages.closed_loop import SizeChoice
from prunec.compiler.stages.cost_models import cost_model, known_costs, runs_here
from prunec.compiler.stages.pass_steps import evidence_of
from prunec.compiler.stages.time_goals import measuring
from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.goals import Goals
from prunec.passes.branch_removal import remove_branches
from prunec.passes.errors import UsageError
from prunec.passes.fold import FoldParameters
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.unknown import Unknown, known
from prunec.passes.whole_file import write_whole
from prunec.runtime.engines.catalogue import preferred_engine
from prunec.runtime.engines.measuring import not_run_here
from prunec.runtime.latency import LatencyComparison

#: Measurements of each of the two networks: a forecast is told in seconds.
_RUNS = 50
_MEASURES = (
    "a cost model is measured first, which can take minutes. Measured once (prunec measure-costs {} --target {} "
    "-o costs.json), --cost-model costs.json makes that seconds."
)


@dataclass(frozen=True)
class PlanFiles:
    """The files of a forecast; None for none.

    Attributes:
        costs: A cost model to read.
        plan: The pruning plan to write.
        page: The page to write.
    """

    costs: Path | None = None
    plan: Path | None = None
    page: Path | None = None


def plan_checkpoint(
    job: Job, goals: Goals, files: PlanFiles, note: Callable[[str], None], *, measure: bool = True
) -> Forecast:
    """Plan the pruning of a checkpoint as its recipe asks for it, and write the plan and the page.

    Args:
        job: The task, as compile takes it; it trains nothing.
        goals: Goals in place of the ratio or the goals of the recipe; none leaves those.
        files: The files to read and to write, each as a whole or not at all.
        note: Receiver of remarks on what was done to the checkpoint on the way.
        measure: Whether both networks are timed in the end, where the target's engine runs on this machine.

    Raises:
        UsageError: A goal is out of reach, or in times that nothing tells, or the recipe has no single pruning that
            could be planned.
        PrunecError: The checkpoint can't be loaded, the cost model not be had, or a file not be written.
    """
    for name, path in (("--output", files.plan), ("--html", files.page)):
        if path is not None:
            check_file_can_be_written(path, f"{name} {path}")
    prepared = prepare(job, note, runs=True)
    options = _options(prepared, goals)
    request = _request(prepared, options, files.costs, note)
    if files.costs is None and runs_here(request):
        note(_MEASURES.format(job.checkpoint, job.target))
    costs = cost_model(request) if options.needs_costs else known_costs(request)
    given = StepInput(_to_be_pruned(request), request, prepared.settings.seed, (), costs=known(costs))
    planned = _planned(options, given, costs)
    measured = _measured(given, planned) if measure else Unknown("it was left out (--no-measure).")
    result = forecast(planned, measured, job.target, prepared.settings.latency_batch)
    if files.plan is not None and planned.result.plan is not None:
        write_whole(files.plan, planned.result.plan.to_json())
    if files.page is not None:
        write_whole(files.page, render_forecast(result, prepared.settings.command))
    return result


def _options(prepared: Prepared, goals: Goals) -> PruneFilters:
    """The one pruning of a recipe, by the goals of the command line where there are any.

    Raises:
        UsageError: The recipe prunes no filters, several times, or by a plan.
    """
    prunings: list[PruneFilters] = prepared.recipe.pipeline.of(PruneFilters)
    if len(prunings) != 1:
        count = "no filters" if not prunings else f"filters {len(prunings)} times"
        raise UsageError(
            f"The recipe prunes {count}, and a plan is that of one pruning.",
            hint="Name one: --pipeline 'prune-filters{speedup=2.0}'.",
        )
    (options,) = prunings
    if options.allocation == "joint":
        raise UsageError(
            "The recipe prunes with allocation=joint, which decomposes layers, and a plan forecasts widths alone.",
            hint="Compile with it: the bundle's plan.json has the widths and ranks.",
        )
    options = replace(options, seed=prepared.settings.seed if options.seed is None else options.seed)
    if goals.given:
        asked = {field.name: getattr(goals, field.name) for field in fields(goals)}
        return replace(options, ratio=None, plan="", **asked)
    if options.plan:
        raise UsageError(
            f"The recipe prunes by the plan {options.plan}: there is nothing left to plan.",
            hint="Name a goal, such as --latency-speedup 1.5.",
        )
    return options


def _request(prepared: Prepared, options: PruneFilters, costs: Path | None, note: Callable[[str], None]) -> Request:
    """The request that the recipe makes of the checkpoint; data are loaded only where the criterion needs them."""
    job, project = prepared.job, Project(prepared.config)
    settings = replace(prepared.settings, latency_runs=_RUNS, cost_model=costs)
    settings.progress.stage("load the checkpoint")
    loaded = project.load(job.checkpoint, job.model)
    for text in (*loaded.notes, *loaded.program.capture_notes):
        note(text)
    data, objective = None, project.objective()
    if options.needs:
        settings.progress.stage("load the data")
        data = project.data(settings.seed)
        assert data is not None, "a criterion that needs data is refused where there are none"
        check_fit(loaded.program, data, objective)
    return Request(loaded.program.inference(), job.target, prepared.recipe.pipeline, data, objective, settings)


def _to_be_pruned(request: Request) -> Program:
    """The network as the pruning finds it: steps that train aren't taken, and computed weights are plain ones."""
    program = request.dense
    for options in request.pipeline.of(FoldParameters):
        program = options.run(program).program
    return program


def _planned(options: PruneFilters, given: StepInput, costs: Costs | Unknown) -> Planned:
    program, model = given.program, None if isinstance(costs, Unknown) else costs.model
    evidence = evidence_of(options, given) if options.needs else None
    given.request.settings.progress.stage("choose widths")
    dense, result = Allocator.of(program, options, model, evidence), options.run(program, evidence, model)
    assert result.plan is not None, "a pruning has a plan"
    names = [branch.name for branch in result.plan.removed_branches]
    left = Allocator.of(remove_branches(program, names), options, model, evidence) if names else dense
    return Planned(program, options, costs, dense, left, result)


def _measured(given: StepInput, planned: Planned) -> LatencyComparison | Unknown:
    """Both networks, timed in turns where the target's engine runs on this machine."""
    request = given.request
    if not runs_here(request):
        return not_run_here(preferred_engine(request.target, request.settings.engine_options), request.target)
    assert planned.speedup is not None, "where the engine runs a cost model is measured"
    with measuring(given) as measure:
        return measure(SizeChoice(planned.result, planned.speedup, planned.figures["latency_ms"]))
