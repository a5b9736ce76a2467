"""Control arms and further seeds: the same compile again with one thing changed, up to its accuracy."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

from prunec.calibration.quantization.calibrate import AUTO, Calibrate
from prunec.compiler.facts.ledger import LedgerEntry
from prunec.compiler.facts.outcome import ControlRun, SeedRun
from prunec.compiler.facts.pass_facts import Decomposed, Pruned, Sparsified
from prunec.compiler.facts.step_facts import StepInput, entries_of, facts_of, last_accuracy
from prunec.compiler.pipeline.pipeline import Pipeline
from prunec.compiler.recovery.controls import reinitialised_program
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.quantize_hook import Quantize
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.recovered import BACKWARD_OVER_FORWARD, Retraining
from prunec.compiler.stages.booking import untrained_entry
from prunec.compiler.stages.dense_trainings import scratch_pipeline
from prunec.compiler.stages.fresh_network import fresh_network
from prunec.compiler.stages.step_runs import run_steps
from prunec.passes.errors import PrunecError
from prunec.passes.identity import weights_sha256
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import known


@dataclass(frozen=True)
class _Arm:
    """The run of a control.

    Attributes:
        program: Its first program.
        pipeline: The steps that it runs.
        note: A remark on it.
        from_scratch: Whether its first weights are random.
        masked: Number of weights that each step which masks must mask, by the weight; empty where its criterion says.
    """

    program: Program
    pipeline: Pipeline
    note: str = ""
    from_scratch: bool = False
    masked: tuple[Mapping[str, int], ...] = ()


def run_seeds(main: StepInput) -> tuple[tuple[SeedRun, ...], bool]:
    """Run all steps of a run that has ended again, with further seeds.

    Returns:
        The runs, and whether any seed gave other weights.
    """
    request = main.request
    arm = _Arm(request.dense, request.pipeline)
    ended = [_repeated(main, f"seed {seed}", arm, seed) for seed in _seeds(main)[1:]]
    runs = tuple(_seed_run(main, run) for run in ended)
    return runs, any(run.history[-1].weights != main.history[-1].weights for run in ended)


def run_controls(main: StepInput) -> tuple[ControlRun, ...]:
    """Run the control arms that were asked for, with all seeds, to compare with a run that has ended."""
    return tuple(_control(name, main) for name in dict.fromkeys(main.request.settings.controls))


def _control(name: str, main: StepInput) -> ControlRun:
    ended = []
    for seed in _seeds(main):
        arm = _arm(name, replace(main, seed=seed))
        ended.append(_repeated(main, name if seed == main.seed else f"{name}, seed {seed}", arm, seed))
    retrainings = facts_of(ended[0].history, Retraining)
    return ControlRun(
        name=name,
        epochs=sum(len(retraining.curve) for retraining in retrainings),
        schedule=retrainings[-1].options.schedule,
        macs=ended[0].program.macs(),
        zero_fraction=ended[0].program.zero_fraction(),
        seeds=tuple(_seed_run(main, run) for run in ended),
        note=arm.note,
    )


def _seeds(main: StepInput) -> range:
    first = main.request.settings.seed
    return range(first, first + main.request.settings.seeds)


def _seed_run(main: StepInput, run: StepInput) -> SeedRun:
    """A run that has ended, without the entry of the dense network's training, which is the main run's."""
    own = run.history[1:] if run.history[0] is main.history[0] else run.history
    return SeedRun(run.seed, last_accuracy(run.history), entries_of(own))


def _arm(name: str, main: StepInput) -> _Arm:
    request = main.request
    followed = tuple(retraining.options for retraining in main.before(Retraining))
    if name == "dense":
        steps = _followed(request.pipeline, map(_without_preparation, followed)).steps
        return _Arm(request.dense, Pipeline(tuple(step for step in steps if isinstance(step.options, Recover))))
    if name == "off-grids":
        pipeline = _followed(request.pipeline, map(_off_grids, followed))
        return _Arm(request.dense, pipeline, note=_chosen_anew(pipeline))
    if name == "random":
        return _random_arm(main, _followed(request.pipeline, map(_without_preparation, followed)))
    epochs = max(1, round(_scratch_epochs(main, of_operations=name == "scratch-b")))
    program, note = _from_scratch(main)
    return _Arm(program, scratch_pipeline(followed, request.settings, epochs), note, from_scratch=True)


def _scratch_epochs(main: StepInput, *, of_operations: bool) -> float:
    """Epochs of the dense training and of what the run trained, or as many of the compiled network as cost the same."""
    line = [entry for entry in entries_of(main.history) if entry.weights_out is not None]
    if not of_operations:
        return sum(known(entry.epochs) or 0.0 for entry in line)
    operations = sum((known(entry.epochs) or 0.0) * _total(entry) for entry in line)
    return operations / ((1 + BACKWARD_OVER_FORWARD) * main.program.macs())


def _total(entry: LedgerEntry) -> float:
    macs = known(entry.macs_per_sample)
    return 0.0 if macs is None else sum(astuple(macs))


def _without_preparation(options: Recover) -> Recover:
    """A training without the hooks that ready a network for a pruning that doesn't come, or comes by chance."""
    return replace(options, hooks=tuple(hook for hook in load_hooks(options.hooks) if not hook.prepares_pruning))


def _chosen_anew(pipeline: Pipeline) -> str:
    """What a calibration that isn't the run's own chooses for itself, as a note; empty where it chooses nothing."""
    calibrations: list[Calibrate] = pipeline.of(Calibrate)
    chosen = [
        *["settings"] * any(each.method == AUTO for each in calibrations),
        *["layers in higher precision"] * any(each.limit or each.keep_macs is not None for each in calibrations),
    ]
    return f"its calibration chooses {' and '.join(chosen)} anew" if chosen else ""


def _off_grids(options: Recover) -> Recover:
    """A training without rounding to grids."""
    return replace(options, hooks=tuple(hook for hook in load_hooks(options.hooks) if hook.name != Quantize.name))


def _followed(pipeline: Pipeline, retrainings: Iterable[Recover]) -> Pipeline:
    """A pipeline whose recoveries have the options that were followed, also where these were chosen on the way."""
    left = iter(retrainings)
    steps = (replace(s, options=next(left)) if isinstance(s.options, Recover) else s for s in pipeline.steps)
    return Pipeline(tuple(steps))


def _random_arm(main: StepInput, pipeline: Pipeline) -> _Arm:
    """The arm that chooses filters by chance; where none are pruned weights, in every layer as many as the run masked.

    What chance loses by another share in each layer tells nothing of the choice within it (Su et al., "Sanity-Checking
    Pruning Methods", NeurIPS 2020).
    """
    if pipeline.of(PruneFilters):
        return _Arm(main.request.dense, _at_random(pipeline))
    steps = (
        replace(s, options=replace(s.options, criterion="random")) if isinstance(s.options, Sparsify) else s
        for s in pipeline.steps
    )
    masked = tuple(fact.masked_by_weight for fact in main.before(Sparsified))
    return _Arm(main.request.dense, Pipeline(tuple(steps)), masked=masked)


def _at_random(pipeline: Pipeline) -> Pipeline:
    """A pipeline that chooses filters at random; of a plan, which names them, only the widths are left (`planned`)."""

    def at_random(options: PruneFilters) -> PruneFilters:
        without_plan: dict[str, Any] = {"plan": "", "ratio": {}} if options.plan else {}
        # Widths are planned: a rule that chance can't be asked by chooses none.
        allocation = "auto" if options.allocation in ("provable", "joint") else options.allocation
        return replace(options, criterion="random", allocation=allocation, **without_plan)

    steps = (replace(s, options=at_random(s.options)) if s.name == PruneFilters.name else s for s in pipeline.steps)
    return Pipeline(tuple(steps))


def _unprobed(pipeline: Pipeline) -> Pipeline:
    """A pipeline whose trainings have no probes."""
    steps = (replace(s, options=replace(s.options, probe=0)) if s.name == Recover.name else s for s in pipeline.steps)
    return Pipeline(tuple(steps))


def _from_scratch(main: StepInput) -> tuple[Program, str]:
    """The pruned architecture with random weights and the same masks, and a note on how the weights were drawn."""
    settings, compiled = main.request.settings, main.program
    by_rule = "weights by Kaiming's rule, norms the identity"
    program, note = None, f"there is no factory: {by_rule}"
    if settings.module is not None:
        try:
            program, note = fresh_network(main.request, main.plan, main.seed), ""
        except PrunecError as error:
            note = f"the factory's module can't be used ({error.message}): {by_rule}"
    if program is None:
        program = reinitialised_program(compiled, main.seed)
    program.masks = {name: mask.clone() for name, mask in compiled.masks.items()}
    program.patterns = dict(compiled.patterns)
    program.apply_masks()
    return program, note


def _repeated(main: StepInput, name: str, arm: _Arm, seed: int) -> StepInput:
    """Run an arm's steps and nothing after them; without probes, whose verdict nobody would read."""
    main.request.settings.progress.stage(f"control: {name}")
    first = main.history[0]
    if arm.from_scratch:
        weights = weights_sha256(arm.program)
        first = replace(first, entries=(untrained_entry(name, weights, seed),), weights=weights)
    planned = tuple(pruned.sizes for pruned in main.before(Pruned))
    ranks = tuple(decomposed.ranks for decomposed in main.before(Decomposed))
    start = replace(main, program=arm.program, history=(first,), seed=seed, arm=name)
    start = replace(start, planned=planned, planned_ranks=ranks, masked=arm.masked)
    return run_steps(start, _unprobed(arm.pipeline))
