"""The steps of a pipeline, one after the other: each is run, checked where that is asked for, and measured."""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace

from prunec.compiler.facts.ledger import LedgerEntry
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.step_facts import NO_DATA, StepCost, StepFact, StepInput, StepOutput
from prunec.compiler.gates.own_gates import MIN_DONE_PERCENT
from prunec.compiler.machine.ranks import is_main
from prunec.compiler.pipeline.own_steps import OWN_STEPS, STEPS
from prunec.compiler.pipeline.pipeline import Pipeline, Step
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.stages.booking import pretraining_entry, step_entries
from prunec.compiler.stages.preflight import preflight
from prunec.passes.base import Aim, PassResult
from prunec.passes.branch_removal import without_branches
from prunec.passes.dump import program_text
from prunec.passes.feeding import runner
from prunec.passes.figures import plain_figures
from prunec.passes.identity import weights_sha256
from prunec.passes.interruption import stoppable
from prunec.passes.options import is_frozen
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.passes.verify import input_unchanged, verify_pass
from prunec.runtime.costs.roofline import predict_program
from prunec.runtime.evaluate import EVALUATION_BATCH, evaluate

_UNCHANGED = Unknown("the step leaves the network's function as it was: see the step before.")
_HELPING = Unknown("this process only helps to train.")


def run_steps(given: StepInput, pipeline: Pipeline) -> StepInput:
    """The input of a step after those that a pipeline takes on the dense network: their program, and their facts.

    Raises:
        PrunecError: A step can't be done, or its result failed a check.
    """
    steps = pipeline.on_dense
    for place, step in enumerate(stoppable(steps), start=1):
        tried = preflight(given, steps[place:]) if isinstance(step.options, Recover) else None
        output = _run_step(step, replace(given, ahead=steps[place:]))
        weights = weights_sha256(output.program)
        entries = step_entries(step, given, output, weights)
        fact = replace(_fact(given.request, step, output, weights, entries), preflight=tried)
        if fact.note and not given.arm:
            given.request.settings.progress.note(f"{step}: {fact.note}")
        given = replace(given, program=output.program, history=(*given.history, fact))
    return given


def dense_fact(request: Request, training: LedgerEntry | None = None) -> StepFact:
    """The first fact of every run: the dense network's, with the entry of its training; by default as that is told."""
    weights = weights_sha256(request.dense)
    entry = training or pretraining_entry(request, weights)
    return _fact(request, None, StepOutput(request.dense), weights, (entry,))


def _run_step(step: Step, given: StepInput) -> StepOutput:
    settings, before = given.request.settings, given.program
    if step.name not in OWN_STEPS:
        given = replace(given, program=before.clone())  # one that writes in place must not reach the caller's weights
    unchanged = input_unchanged(given.program, step.name) if settings.verify_each else nullcontext()
    with STEPS.blame(step.name), unchanged:
        output: StepOutput = step.kind.runner()(step.options, given)
        _check_output(before, output)
    if output.plan is not None:
        given.plan.then(output.plan)  # which refuses what no plan can tell
    if settings.verify_each:
        claim = PassResult(output.program, output.modified, plan=output.plan, compensated=output.compensated)
        verify_pass(before, claim, step.name)
    if step.name in settings.print_after:
        settings.progress.text(f"after {step}", program_text(output.program))
    return output


def _check_output(before: Program, output: StepOutput) -> None:
    """Raise what a step is blamed for that gives back something else than a program of the same layers and outputs.

    Layers may go with the branches that its plan removes, and two may stand in the place of one that it decomposes.
    """
    if not isinstance(output, StepOutput):
        raise TypeError(f"it gave back a {type(output).__name__}, expected a StepOutput")
    if not isinstance(output.program, Program):
        raise TypeError(f"its program is a {type(output.program).__name__}, expected a Program")
    if not isinstance(output.figures, Mapping):
        raise TypeError(f"its figures are a {type(output.figures).__name__}, expected a mapping")
    if not isinstance(output.cost, StepCost | None):
        raise TypeError(f"its cost is a {type(output.cost).__name__}, expected a StepCost")
    if not isinstance(output.aim, Aim | None):
        raise TypeError(f"its aim is a {type(output.aim).__name__}, expected an Aim")
    if not isinstance(output.note, str):
        raise TypeError(f"its note is a {type(output.note).__name__}, expected text")
    if output.options is not None and not is_frozen(output.options):
        raise TypeError(f"its options are a {type(output.options).__name__}, expected a frozen dataclass")
    if output.program.training:
        raise ValueError("the program that it gave back is in training form, expected its inference form")
    plan = output.plan or PruningPlan({})
    expected = without_branches(before, plan.removed_branches)
    for what, got, wanted in (
        ("layers", _operators(output.program), _operators(expected, plan.ranks)),
        ("output shapes", _output_shapes(output.program), _output_shapes(expected)),
    ):
        if got != wanted:
            raise ValueError(f"the program that it gave back has the {what} {got}, expected {wanted}")


def _note(output: StepOutput) -> str | None:
    """What the user should know of a step's result, as a sentence."""
    aim, half = output.aim, MIN_DONE_PERCENT / 100
    if output.note or aim is None or (aim.asked and aim.share >= half):
        return output.note or None
    if not aim.asked:
        return f"it is asked for no {aim.what}: the network stays as it was."
    why = f" ({aim.reason})" if aim.reason else ""
    return f"{aim.got:g} of {aim.asked:g} {aim.what}{why}, less than {MIN_DONE_PERCENT:g} % of what was asked for."


def _operators(program: Program, decomposed: Collection[str] = ()) -> list[str]:
    """The operators of a program's layers, of those whose weights are decomposed twice."""
    return [layer.operator for layer in program.layers() for _ in range(1 + (layer.weight in decomposed))]


def _output_shapes(program: Program) -> list[object]:
    return [node.meta.get("sample_shapes") for node in program.graph.output_node().all_input_nodes]


def _fact(
    request: Request, step: Step | None, output: StepOutput, weights: str, entries: tuple[LedgerEntry, ...]
) -> StepFact:
    program, parameters = output.program, output.program.parameters()
    counted = {layer.weight for layer in program.layers()} & parameters.keys()
    return StepFact(
        step=step,
        macs=program.macs(),
        nonzero_weights=sum(int(parameters[weight].count_nonzero()) for weight in counted),
        predicted_ms=predict_program(program, request.target, request.settings.latency_batch),
        accuracy=_accuracy(request, step, program),
        entries=entries,
        weights=weights,
        plan=output.plan,
        fact=output.fact,
        figures=plain_figures(output.figures),
        aim=output.aim,
        note=_note(output),
    )


def _accuracy(request: Request, step: Step | None, program: Program) -> float | Unknown:
    """Metric on the test data, where there is data and this process speaks for all."""
    if request.data is None:
        return NO_DATA
    if step is not None and not step.kind.measures_accuracy:
        return _UNCHANGED
    if not is_main():
        return _HELPING
    request.settings.progress.stage(f"accuracy, {(step.kind.accuracy or step.name) if step is not None else 'dense'}")
    network = runner(program.inference())
    return evaluate(network, request.data.test.batches(EVALUATION_BATCH), request.objective.metric)
