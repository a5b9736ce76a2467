"""The dense checkpoint of a bundle: whether it is its source, and what the bundle's plan makes of it."""

from dataclasses import replace
from itertools import takewhile

from prunec.compiler.bundle.bundle_names import PLAN, REPORT
from prunec.compiler.bundle.bundle_reader import Bundle
from prunec.compiler.commands.verify_checks import refuse
from prunec.compiler.machine.versions import tool_version
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.recovery.pretrain_options import Pretrain
from prunec.compiler.report.ledger_part import chain
from prunec.compiler.report.report import Report
from prunec.passes.base import PassResult
from prunec.passes.criteria.catalogue import unit_criterion
from prunec.passes.criteria.protocol import CompensatesUnits
from prunec.passes.errors import InputError, NumericMismatchError
from prunec.passes.factorizing import factorized
from prunec.passes.factors import factor_names, product
from prunec.passes.fold import FoldParameters
from prunec.passes.identity import architecture_sha256, weights_sha256
from prunec.passes.low_rank import Decompose
from prunec.passes.oracle import TOLERANCE, check_oracle
from prunec.passes.permute import Permute
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.quantizers import is_quantized
from prunec.passes.rewrite import apply_plan_to_program
from prunec.passes.unknown import Unknown, known

#: Steps that keep every value which they don't remove.
_PLAIN = (PruneFilters.name, Permute.name)
#: Rounding of factors to float32, against the norm of their product.
_ROUNDING = 1e-5


def same_source(bundle: Bundle, dense: Program) -> str:
    """Say that a dense program is what a bundle was compiled from; of weights that the run trained, only the network.

    Raises:
        InputError: The dense program is another.
    """
    model, has_ledger = bundle.report.model, not isinstance(bundle.report.ledger, Unknown)
    expected = model.source_sha256
    # Reports without a ledger have the fingerprint of all tensors of the checkpoint, used or not.
    got = weights_sha256(dense) if has_ledger else dense.origin
    trained = bool(parse_pipeline(bundle.report.pipeline).of(Pretrain))
    if got != expected and not trained:
        raise InputError(f"the checkpoint's weights have sha256 {got[:12]}, the bundle's source {expected[:12]}")
    is_exported_alike = bundle.report.environment.versions.get("torch") == tool_version("torch")
    if has_ledger and is_exported_alike and architecture_sha256(dense) != model.architecture_sha256:
        raise InputError("the checkpoint's weights are the bundle's source's, but its network has other operators")
    if trained:
        return "the checkpoint is of the bundle's network, whose weights the run trained itself (pretrain)"
    return f"the checkpoint is the bundle's source, sha256 {expected[:12]}"


def check_dense_figures(bundle: Bundle, dense: Program) -> str:
    """Say that the report's figures of the dense network are those of the checkpoint.

    Raises:
        InputError: Some differ.
    """
    report = bundle.report
    figures = {
        "macs.dense": (report.macs.dense, dense.macs()),
        "parameters.dense": (report.parameters.dense, dense.parameter_count()),
    }
    wrong = {path: values for path, values in figures.items() if values[0] != values[1]}
    refuse(REPORT, [f"{path} is {told}, the checkpoint has {got}" for path, (told, got) in wrong.items()])
    return f"{len(figures)} figures of the dense network are the checkpoint's"


def replay(bundle: Bundle, dense: Program, compiled: Program) -> str:
    """Say that the plan makes a network of the compiled one's shapes of the dense one, which equals the zeroed one.

    Raises:
        InputError: The plan doesn't fit the network.
        NumericMismatchError: The shapes, or the outputs, differ.
    """
    plan = PruningPlan.from_json((bundle.folder / PLAN).read_text(encoding="utf-8"))
    for options in parse_pipeline(bundle.report.pipeline).of(FoldParameters):
        dense = options.run(dense).program
    cut = apply_plan_to_program(dense, replace(plan, ranks={}))
    replayed = factorized(cut, plan.ranks)
    folded = fold_batch_norms(replayed).program if is_quantized(compiled.graph) else replayed
    got = {name: tuple(tensor.shape) for name, tensor in folded.parameters().items()}
    expected = {name: tuple(tensor.shape) for name, tensor in compiled.parameters().items()}
    if wrong := [name for name in expected if got.get(name) != expected[name]]:
        first = f"{wrong[0]}: got {got.get(wrong[0])}, in the bundle {expected[wrong[0]]}"
        raise NumericMismatchError(f"{len(wrong)} parameters differ in shape, {first}")
    expected_sha256 = _weights_after_plan(bundle.report, plan)
    if expected_sha256 is not None and weights_sha256(cut) != expected_sha256:
        raise NumericMismatchError("the plan keeps other slices than those that were kept: the weights differ")
    _check_products(bundle.report, plan, replayed, compiled)
    if plan.is_empty:
        return "nothing was pruned"
    result = PassResult(replayed, modified=True, plan=plan)
    report = check_oracle(dense, result, dense.example_args, dense.example_kwargs)
    error = f"{report.masked_max_relative_error:.1e}, allowed {TOLERANCE:g}"
    if not report.passed:
        raise NumericMismatchError(f"the replay differs from the zeroed dense network by {error}")
    branches = f"{len(plan.removed_branches)} branches removed, " if plan.removed_branches else ""
    ranks = f", {len(plan.ranks)} layers decomposed" if plan.ranks else ""
    return f"{branches}{len(plan.cuts.kept)} tensors pruned to the bundle's shapes{ranks}; oracle {error}"


def _weights_after_plan(report: Report, plan: PruningPlan) -> str | None:
    """Fingerprint of the weights after the last step that removed or reordered channels.

    None where the run trained the dense network itself, where a step before it changed values otherwise, where it
    decomposed layers as well, or where the report doesn't tell.
    """
    if isinstance(report.ledger, Unknown):
        return None
    pipeline = parse_pipeline(report.pipeline)
    if pipeline.of(Pretrain) or (plan.ranks and not pipeline.of(Decompose)):
        return None
    prunings = pipeline.of(PruneFilters)
    if any(isinstance(unit_criterion(options.criterion, options.name), CompensatesUnits) for options in prunings):
        return None
    steps = chain(report.ledger)[1:]
    plain = list(takewhile(lambda entry: entry.stage in _PLAIN, steps))
    if not plain or any(entry.stage in _PLAIN for entry in steps[len(plain) :]):
        return None
    return known(plain[-1].weights_out)


def _check_products(report: Report, plan: PruningPlan, replayed: Program, compiled: Program) -> None:
    """Refuse factors of the compiled network whose product is another one, where nothing changed them since.

    The factors themselves may differ by rounding from one machine to another.

    Raises:
        NumericMismatchError: There are such.
    """
    if isinstance(report.ledger, Unknown) or not plan.ranks:
        return
    decomposing = [entry for entry in chain(report.ledger) if entry.stage in (Decompose.name, PruneFilters.name)]
    if not decomposing or known(decomposing[-1].weights_out) != known(report.model.compiled_sha256):
        return
    ours, theirs = replayed.tensors(), compiled.tensors()
    for weight in plan.ranks:
        names = factor_names(weight)
        expected, got = (product(*(tensors[name].detach().double() for name in names)) for tensors in (ours, theirs))
        if float((expected - got).norm()) > _ROUNDING * float(expected.norm()):
            raise NumericMismatchError(f"the factors of {weight} have another product than those of the dense weight")
