"""Filter pruning for goals in time: what the closed loop chooses and measures."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.compiler.facts.costs import Costs, Timed, TimeGoal, TimeTry
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import StepInput
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.stages.closed_loop import SizeChoice, close_the_loop
from prunec.compiler.stages.export_network import export_untrained
from prunec.compiler.stages.stored_choices import store_plan, stored_plan
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.planned_pruning import planned_sizes
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.quantization.made_up_ranges import quantized_untrained
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown
from prunec.runtime.engines.catalogue import choose_engine
from prunec.runtime.engines.measuring import MeasureSettings, compare_models
from prunec.runtime.engines.remote import survived
from prunec.runtime.grid_form import form_of
from prunec.runtime.latency import LatencyComparison
from prunec.runtime.numerics import batch_sizes, random_inputs

_OF_FILE = "with a cost model from a file nothing is corrected by a measurement."
_RESUMED = "the compile was resumed, with the widths that it had chosen before."
_PREDICTED = "the target's engine doesn't run here."


def sizes_in_time(
    options: PruneFilters, given: StepInput, evidence: Evidence | None
) -> tuple[ChosenSizes | None, Timed | None]:
    """The sizes for a goal in time, the same in all processes, and what was tried for it.

    Returns:
        The sizes, and the tries; None for both where no goal in time is asked for.
    """
    costs = given.costs
    if costs is None or not options.needs_costs:
        return None, None
    goal = TimeGoal(options.latency_speedup, options.latency_ms)
    choose = partial(_choose, options, given, evidence, costs)
    if not costs.corrects:
        first, why = choose(1.0), _OF_FILE if costs.from_file else _PREDICTED
        tried = TimeTry(1.0, first.predicted_speedup, first.predicted_ms, Unknown(why))
        return first.sizes, Timed(goal, (tried,), why_ended=why)
    return Processes.join().from_main(_corrected(options, goal, given, choose) if is_main() else (None, None))


def _corrected(
    options: PruneFilters, goal: TimeGoal, given: StepInput, choose: Callable[[float], SizeChoice]
) -> tuple[ChosenSizes, Timed]:
    """The widths by measurements, or where the compile is resumed those that it has chosen before."""
    if (plan := stored_plan(options, given)) is not None:
        return planned_sizes(given.program, plan), Timed(goal, (), why_ended=_RESUMED)
    with measuring(given) as measure:
        choice, timed = close_the_loop(goal, choose, measure)
    assert choice.result.plan is not None, "a pruning has a plan"
    store_plan(options, given, choice.result.plan)
    return choice.sizes, timed


def _choose(
    options: PruneFilters, given: StepInput, evidence: Evidence | None, costs: Costs, tightened: float
) -> SizeChoice:
    """The widths for the goals in time tightened by a factor, and the others as they are."""
    speedup, ms = options.latency_speedup, options.latency_ms
    tighter = replace(
        options,
        latency_speedup=None if speedup is None else max(1.0, speedup * tightened),
        latency_ms=None if ms is None else ms / tightened,
    )
    result = tighter.run(given.program, evidence, costs.model)
    told = result.stats["allocation"]
    dense_ms, ms = told["dense"]["latency_ms"], told["predicted"]["latency_ms"]
    return SizeChoice(result, dense_ms / ms, ms)


@contextmanager
def measuring(given: StepInput) -> Iterator[Callable[[SizeChoice], LatencyComparison | Unknown]]:
    """What measures the network of a choice in turns with the one that came in, on the target."""
    request, settings = given.request, given.request.settings
    kind = choose_engine(request.target, settings.engine_options)
    inputs = random_inputs(request.dense, batch_sizes(request.dense, (settings.latency_batch,))[0], settings.seed)
    timing = MeasureSettings(settings.latency_runs, settings.seed, settings.threads)
    with tempfile.TemporaryDirectory() as scratch:
        dense_folder = Path(scratch) / "dense"
        dense_folder.mkdir()
        dense = survived(partial(export_untrained, request.target, given.program, dense_folder))

        def measure(choice: SizeChoice) -> LatencyComparison | Unknown:
            settings.progress.stage("measure the widths that were chosen")
            if isinstance(dense, Unknown):
                return dense
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                program = _foreseen(request, choice.result.program)
                compiled = survived(partial(export_untrained, request.target, program, Path(folder)))
                if isinstance(compiled, Unknown):
                    return compiled
                return survived(
                    lambda: compare_models(
                        kind, request.target, dense, compiled, inputs, options=settings.engine_options, settings=timing
                    )
                )

        yield measure


def _foreseen(request: Request, program: Program) -> Program:
    """A program with the 2:4 that later steps give it, by magnitude, and on grids of made-up ranges."""
    for options in request.pipeline.of(Sparsify) if request.target.sparse else ():
        program = replace(options, criterion="magnitude").run(program).program
    for options in request.pipeline.of(Calibrate):
        form = form_of(request.target)
        program = quantized_untrained(program, form, options.keep, equalized=options.equalize is True)
    return program
