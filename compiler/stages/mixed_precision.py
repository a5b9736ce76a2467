"""The fewest layers in higher precision that meet a limit of what whole numbers lose: searched for, judged, booked."""

import math
from collections.abc import Callable, Mapping, Sequence

from prunec.calibration.quantization.calibrate import Calibrate
from prunec.calibration.quantization.observed_program import ObservedProgram
from prunec.calibration.quantization.sensitivity import (
    LayerSensitivity,
    fewest_kept,
    layer_costs,
    sensitivities,
    worst_first,
)
from prunec.compiler.facts.choice_stages import SPLITS
from prunec.compiler.facts.layer_choice import LayerChoice, LayerSearch, MeasuredLoss, Trial
from prunec.compiler.facts.step_facts import Beside, StepCost, StepInput
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.recovery.processes import Processes
from prunec.compiler.stages.held_back import Judge
from prunec.compiler.stages.stored_choices import store_layers, stored_layers
from prunec.passes.costs.cost_model import CostSource
from prunec.passes.errors import NumericMismatchError
from prunec.passes.feeding import BatchInputs, sample_count
from prunec.passes.program import Program

#: (layers that stay in higher precision) -> the network on grids but for them, its weights rounded as is asked for.
Finish = Callable[[tuple[str, ...]], Program]


def choose_layers(
    options: Calibrate, given: StepInput, observed: ObservedProgram, inputs: Sequence[BatchInputs], finish: Finish
) -> LayerChoice:
    """Choose the layers for the limit of a calibration, the same in all processes.

    Trials round weights to the nearest, but for the one that keeps no layer. Where that isn't how weights are rounded
    in the end, the network that is left is judged once more. A compile that is resumed takes the layers that it chose.

    Args:
        options: The options, which have a limit.
        given: The input of the step.
        observed: The network and its values.
        inputs: Calibration inputs for the sensitivity of layers.
        finish: Rounds weights as the options ask; it is called for the network that is left, and maybe once before.

    Raises:
        NumericMismatchError: The error of the outputs isn't finite with the layers that are chosen.
    """
    assert options.limit is not None
    judge = Judge(options.limit, given, observed.program)
    search = Processes.join().from_main(_search(options, given, observed, inputs, finish, judge) if is_main() else None)
    assert search is not None, "the first process searches"
    is_judged_again = bool(search.kept) and options.rounding != "nearest"
    loss = judge.loss(finish(search.kept)) if is_judged_again else search.loss
    if not math.isfinite(loss.value):
        raise NumericMismatchError(
            f"{options.name}: {options.limit.measure} can't be judged: with {len(search.kept)} layers in higher "
            "precision the outputs of the network on grids are not finite, or those in floating point are all zero.",
            hint="Look at the outputs for some of the data, or give max_drop_points.",
        )
    return LayerChoice(options.limit, search, loss, is_judged_again)


def booked(choice: LayerChoice, options: Calibrate, given: StepInput) -> tuple[Beside, ...]:
    """What was run beside the step itself, for the ledger."""
    costs = {stage: StepCost(samples=samples, split=SPLITS[stage]) for stage, samples in choice.samples_run.items()}
    return tuple(Beside(stage, options, cost, given.history[-1].weights) for stage, cost in costs.items())


def _search(
    options: Calibrate,
    given: StepInput,
    observed: ObservedProgram,
    inputs: Sequence[BatchInputs],
    finish: Finish,
    judge: Judge,
) -> LayerSearch:
    if (stored := stored_layers(options, given)) is not None:
        return stored
    progress = given.request.settings.progress
    whole = finish(())
    source, costs = _costs(given, observed.program)
    measured = _sensitivities(given, observed, inputs, costs)
    trials: dict[tuple[str, ...], MeasuredLoss] = {}

    def lost(kept: tuple[str, ...]) -> float:
        trials[kept] = judge.loss(observed.quantized(kept) if kept else whole)
        return trials[kept].value

    assert options.limit is not None
    progress.stage(f"layers in higher precision for {options.limit.measure}={options.limit.most:g}")
    chosen = fewest_kept(worst_first(measured), lost, options.limit.most, progress.step)
    search = LayerSearch(
        cost_source=source,
        images=sum(map(sample_count, inputs)),
        samples=judge.samples,
        sensitivities=measured,
        trials=tuple(Trial(kept, loss) for kept, loss in trials.items()),
        kept=chosen.kept,
    )
    store_layers(options, given, search)
    return search


def _sensitivities(
    given: StepInput, observed: ObservedProgram, inputs: Sequence[BatchInputs], costs: Mapping[str, float]
) -> tuple[LayerSensitivity, ...]:
    progress, placement = given.request.settings.progress, observed.placement()
    progress.stage(f"what {given.request.target.precision.upper()} of each layer alone changes")
    ranges = observed.ranges(placement)
    return sensitivities(
        observed.program, placement, ranges, observed.form, inputs, costs=costs, progress=progress.step
    )


def _costs(given: StepInput, program: Program) -> tuple[CostSource | None, Mapping[str, float]]:
    """What each layer costs in floating point, by the compile's cost model where it has one."""
    if given.costs is None:
        return None, layer_costs(program)
    return given.costs.model.source, layer_costs(given.program, given.costs.model.plain)
