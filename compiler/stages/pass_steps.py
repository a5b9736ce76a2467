"""The steps that are passes: what each is given, the checks that its result must pass, and the fact that it leaves."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from prunec.calibration.batchnorm import ReestimateBatchNorm
from prunec.calibration.evidence import collect_evidence
from prunec.calibration.one_shot import calibration_inputs, sparsify_by_inputs
from prunec.calibration.statistics import batch_norms, reestimate_batchnorm
from prunec.compiler.facts.costs import Timed
from prunec.compiler.facts.ledger import MacsPerSample
from prunec.compiler.facts.pass_facts import Decomposed, LowRankLayer, Permuted, Pruned, Sparsified
from prunec.compiler.facts.step_facts import StepCost, StepInput, StepOutput
from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD, Retraining
from prunec.compiler.stages.time_goals import sizes_in_time
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.criteria.catalogue import criterion_text
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.errors import NumericMismatchError, SparsityGateError, UnsupportedModelError
from prunec.passes.feeding import sample_count
from prunec.passes.fold import FoldParameters
from prunec.passes.low_rank import Decompose
from prunec.passes.oracle import TOLERANCE, OracleReport, check_oracle
from prunec.passes.patterns.unit_masks import holds_mask
from prunec.passes.permute import Permute
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify

#: Samples per batch where gradients are taken.
_BATCH = 64
_BY_PLAN = "the plan {} says which filters stay: no criterion was asked."
_NOTHING_TO_FOLD = "no weight of the network is computed: nothing was folded."
_NO_BETTER_ORDER = "no order of channels was found in which 2:4 keeps more magnitude: all keep theirs."
_EMPTIED = "no weight is left in {}: what reaches the layers behind no longer depends on the input there."
_NO_BATCH_NORMS = "the network has no batch norm with running statistics: nothing was measured."


def fold(options: FoldParameters, given: StepInput) -> StepOutput:
    """Make computed weights plain ones; the network stays the same function."""
    given.request.settings.progress.stage("fold parameters")
    result = options.run(given.program)
    return StepOutput(result.program, result.modified, note="" if result.modified else _NOTHING_TO_FOLD)


def prune(options: PruneFilters, given: StepInput) -> StepOutput:
    """Prune filters; the result must equal the zeroed program on the example input."""
    given.request.settings.progress.stage("prune filters")
    options = replace(options, seed=given.seed if options.seed is None else options.seed)
    before = given.program
    evidence = _evidence(options, given)
    sizes, timed = _sizes(options, given, evidence)
    result = options.run(before, evidence, None if given.costs is None else given.costs.model, sizes)
    assert result.plan is not None
    oracle = check_oracle(before, result, before.example_args, before.example_kwargs)
    if not oracle.passed:
        _refuse(before, oracle)
    earlier = given.before(Pruned)
    dense_widths = {name: width for name, width, _ in earlier[-1].widths} if earlier else {}
    kept = tuple((g["name"], dense_widths.get(g["name"], g["width"]), g["kept"]) for g in result.stats["groups"])
    branches = tuple(branch.name for branch in result.plan.removed_branches)
    low_rank = tuple(LowRankLayer(**layer) for layer in result.stats["low_rank"])
    fact = Pruned(options, kept, oracle, len(earlier) + 1, result.stats.get("allocation"), timed, branches, low_rank)
    cost = _evidence_cost(before, evidence)
    note = _BY_PLAN.format(options.plan) if options.plan else ""
    output = StepOutput(result.program, result.modified, result.plan, result.compensated, fact, aim=result.aim)
    return replace(output, cost=cost, options=options, note=note)


def _sizes(
    options: PruneFilters, given: StepInput, evidence: Evidence | None
) -> tuple[ChosenSizes | None, Timed | None]:
    """The sizes that a pruning must take: those of the compile itself in further runs, or those for a goal in time.

    What a training decided is decided anew by the training of every run, how much of each layer goes included.
    """
    if given.arm and "decisions" not in options.needs:
        return (None if options.plan else given.planned[len(given.before(Pruned))]), None
    return (None, None) if given.arm else sizes_in_time(options, given, evidence)


def decompose(options: Decompose, given: StepInput) -> StepOutput:
    """Decompose layers; the result must equal the program whose weights are the products of their factors."""
    given.request.settings.progress.stage("decompose layers")
    before = given.program
    result = options.run(before, given.planned_ranks[len(given.before(Decomposed))] if given.arm else None)
    oracle = check_oracle(before, result, before.example_args, before.example_kwargs)
    if not oracle.passed:
        _refuse(before, oracle)
    layers = tuple(LowRankLayer(**layer) for layer in result.stats["layers"])
    fact = Decomposed(options, layers, result.stats["left"], oracle)
    return StepOutput(result.program, result.modified, result.plan, fact=fact, aim=result.aim)


def permute(options: Permute, given: StepInput) -> StepOutput:
    """Reorder channels; the network stays the same function, which the pass checks."""
    given.request.settings.progress.stage(f"permute channels, at most {options.seconds:g} s")
    options = replace(options, seed=given.seed if options.seed is None else options.seed)
    result = options.run(given.program)
    fact, note = Permuted.of(result.stats), "" if result.modified else _NO_BETTER_ORDER
    return StepOutput(result.program, result.modified, result.plan, fact=fact, options=options, note=note)


def sparsify(options: Sparsify, given: StepInput) -> StepOutput:
    """Mask weights to a pattern."""
    criterion = criterion_text(options.criterion)
    given.request.settings.progress.stage(f"sparsify to {options.pattern} by {criterion}")
    options = replace(options, seed=given.seed if options.seed is None else options.seed)
    measured_first = options.needs - ({"inputs"} if options.is_sequential else set())
    evidence = evidence_of(options, given) if measured_first else None
    if options.is_sequential:
        inputs = calibration_inputs(given.batches(options.samples), options.samples)
        result, samples = sparsify_by_inputs(given.program, options, inputs, evidence), sample_count(inputs)
    else:
        counts = given.masked[len(given.before(Sparsified))] if given.masked else None
        result, samples = options.run(given.program, evidence, counts), 0
    cost = _evidence_cost(given.program, evidence, samples)
    check_masks(result.program)
    stats, emptied = result.stats, ", ".join(result.stats["emptied"])
    retained = {layer["layer"]: layer["retained_magnitude"] for layer in stats["layers"] if layer["eligible"]}
    by_weight = stats["masked_by_weight"]
    fact = Sparsified(options, retained, stats["weights"], stats["masked"], stats["wanted"], by_weight)
    output = StepOutput(result.program, result.modified, fact=fact, cost=cost, aim=result.aim, options=options)
    return replace(output, note=_EMPTIED.format(emptied) if emptied else "")


def reestimate(options: ReestimateBatchNorm, given: StepInput) -> StepOutput:
    """Measure the statistics of batch norms anew."""
    given.request.settings.progress.stage("re-estimate batch norms")
    if not batch_norms(given.program):
        return StepOutput(given.program, modified=False, cost=StepCost(), note=_NO_BATCH_NORMS)
    inputs = calibration_inputs(given.batches(options.samples), options.samples)
    result = reestimate_batchnorm(given.program, inputs)
    return StepOutput(result.program, result.modified, cost=StepCost(samples=sample_count(inputs)))


def _evidence(options: PruneFilters, given: StepInput) -> Evidence | None:
    """What the criterion looks at beyond the weights: statistics on data, and what the last training decided."""
    measured = evidence_of(options, given) if options.needs - {"decisions"} else None
    if "decisions" not in options.needs:
        return measured
    trainings = given.before(Retraining)
    hooks = trainings[-1].hooks if trainings else ()
    decisions = {name: value for hook in hooks for name, value in hook.decided.items()}
    return replace(measured or Evidence({}), decisions=decisions)


def evidence_of(options: PruneFilters | Sparsify, given: StepInput) -> Evidence:
    """The evidence for the criterion of a step, from labelled training data."""
    batches = given.batches(options.samples, _BATCH)
    policy = {"policy": options.policy} if isinstance(options, PruneFilters) else {}
    loss = given.request.objective.loss
    return collect_evidence(given.program.inference(), [options.criterion], batches, loss, **policy)


def _evidence_cost(program: Program, evidence: Evidence | None, run_through: int = 0) -> StepCost:
    """The cost of looking at evidence, and at further samples that only run through the network."""
    looked_at, (forward, backward) = (0, (0, 0)) if evidence is None else (evidence.samples, evidence.passes)
    samples, macs = looked_at + run_through, program.macs()
    forward_macs = macs * (forward * looked_at + run_through) / max(samples, 1)
    backward_macs = BACKWARD_OVER_FORWARD * macs * backward * looked_at / max(samples, 1)
    return StepCost(samples=samples, macs_per_sample=MacsPerSample(forward_macs, backward_macs))


def check_masks(program: Program) -> None:
    """Raise `SparsityGateError` where a masked weight doesn't hold its mask, or that its pattern."""
    parameters = program.parameters()
    for name, mask in program.masks.items():
        pattern = program.pattern_of(name)
        if not holds_mask(parameters[name], mask, pattern):
            raise SparsityGateError(
                f"{name} was masked to {pattern.text} and isn't any more.",
                hint="This is a bug of prunec; please report it.",
            )


def _refuse(program: Program, oracle: OracleReport) -> None:
    _check_repeatable(program)
    raise NumericMismatchError(
        f"The pruned network differs from the zeroed dense one by {oracle.masked_max_relative_error:.2e} "
        f"(relative), allowed {TOLERANCE:g}: the coupling analysis is wrong for this network.",
        hint="This is a bug of prunec; please report the architecture. --pipeline with ignore=[...] avoids layers.",
    )


@torch.no_grad()
def _check_repeatable(program: Program) -> None:
    """Refuse a network that no check can be made on, since it draws random numbers."""
    first, second = (pytree.tree_leaves(program(*program.example_args, **program.example_kwargs)) for _ in range(2))
    if any(isinstance(a, Tensor) and not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise UnsupportedModelError(
            "The network gives another output each time it runs on the same input, so that pruning can't be checked.",
            hint="Draw random numbers in training only: `if self.training:` in forward().",
        )
