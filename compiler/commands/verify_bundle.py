"""``prunec verify``: does a bundle hold what its report says?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from prunec.compiler.bundle.bundle_names import MODEL_ONNX, PLAN
from prunec.compiler.bundle.bundle_reader import Bundle, bundle_onnx, bundle_problems, bundle_program, read_bundle
from prunec.compiler.gates.own_gates import MAX_ONNX_VS_TORCH_RELATIVE_ERROR
from prunec.compiler.machine.versions import tool_version
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.project.project import ModelOptions, Project
from prunec.compiler.report.engine_facts import stored_engine, target_and_engine
from prunec.passes.base import PassResult
from prunec.passes.errors import (
    InputError,
    MissingDependencyError,
    NumericMismatchError,
    PrunecError,
    SparsityGateError,
    UsageError,
)
from prunec.passes.fold import FoldParameters
from prunec.passes.identity import architecture_sha256, weights_sha256
from prunec.passes.oracle import TOLERANCE, check_oracle
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program
from prunec.passes.unknown import Unknown, known
from prunec.runtime.engines.measuring import compare_with_torch
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_sparsity import check_sparsity

_SEED = 0


@dataclass(frozen=True)
class Check:
    """One question that verify asks; `exit_code` is 0 unless it failed."""

    name: str
    verdict: Literal["passed", "failed", "skipped"]
    detail: str
    exit_code: int = 0


@dataclass(frozen=True)
class Verification:
    """All checks of one bundle."""

    bundle: str
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0, or the lowest code of the checks that failed."""
        return min((check.exit_code for check in self.checks if check.verdict == "failed"), default=0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "exit_code": self.exit_code}


def verify_bundle(path: Path, *, source: Path | None, config: Path | None, model: ModelOptions) -> Verification:
    """Check a bundle; the pruning plan is replayed on its source, the dense checkpoint, where that is given.

    Raises:
        PrunecError: The bundle or the source can't be read at all.
    """
    bundle = read_bundle(path)
    hashes = _check(lambda: _hashes(bundle), "hashes")
    if hashes.verdict == "failed":
        why = "not tried: the bundle isn't intact."
        names = ("2:4 sparsity", "ONNX against torch", "engine")
        return Verification(str(path), (hashes, *(Check(name, "skipped", why) for name in names)))
    program = bundle_program(bundle.folder)
    checks = [
        hashes,
        _check(lambda: _sparsity(bundle), "2:4 sparsity"),
        _check(lambda: _numerics(bundle, program), "ONNX against torch"),
        _engine(bundle, program),
    ]
    if source is not None:
        dense = Project.find(source, config).load(source, model).program
        checks += [
            _check(lambda: same_source(bundle, dense), "source"),
            _check(lambda: _replay(bundle, dense, program), "plan replayed on the source"),
        ]
    return Verification(str(path), tuple(checks))


def _check(question: Callable[[], str], name: str) -> Check:
    """Passed with what the question returns, failed with what it raises."""
    try:
        return Check(name, "passed", question())
    except PrunecError as error:
        return Check(name, "failed", error.message, error.exit_code)


def _hashes(bundle: Bundle) -> str:
    if problems := bundle_problems(bundle):
        raise InputError("; ".join(problems))
    return f"{len(bundle.manifest.files)} files are as the manifest says"


def _sparsity(bundle: Bundle) -> str:
    exported = {entry.layer: entry for entry in check_sparsity(bundle_onnx(bundle.folder))}
    sparsities = {layer.name: known(layer.sparsity) for layer in bundle.report.layers}
    claimed = [name for name, sparsity in sparsities.items() if sparsity is not None and sparsity.valid]
    if wrong := [name for name in claimed if name not in exported or not exported[name].valid]:
        raise SparsityGateError(f"the report says 2:4, the ONNX model doesn't hold it: {', '.join(wrong[:3])}")
    return f"{len(claimed)} layers are 2:4 in the ONNX model, as the report says"


def _numerics(bundle: Bundle, program: Program) -> str:
    error = onnx_vs_torch(program, bundle.folder / MODEL_ONNX, seed=_SEED)
    return _within(error, MAX_ONNX_VS_TORCH_RELATIVE_ERROR, MODEL_ONNX, "model.pt2")


def _within(error: float, limit: float, what: str, reference: str) -> str:
    text = f"{what} differs from {reference} by {error:.1e} (relative), allowed {limit:g}"
    if not error < limit:
        raise NumericMismatchError(text)
    return text


def _engine(bundle: Bundle, program: Program) -> Check:
    name, engine = "engine", bundle.report.engine
    if isinstance(engine, Unknown):
        return Check(name, "skipped", f"the bundle has none: {engine.reason}")
    try:
        target, kind = target_and_engine(bundle.report)
    except (UsageError, MissingDependencyError) as error:
        return Check(name, "skipped", error.message)
    with ENGINES.blame(kind.name):
        runs_here, limit = kind.runs_here(target), kind.tolerance(target.precision)
    if not runs_here:
        return Check(name, "skipped", f"{engine.path} runs on {target.info.title} only, which isn't here")
    stored = stored_engine(engine, bundle.folder)
    return _check(lambda: _within(compare_with_torch(kind, stored, program), limit, engine.path, "torch"), name)


def same_source(bundle: Bundle, dense: Program) -> str:
    """Say that a dense program is what a bundle was compiled from.

    Raises:
        InputError: The dense program is another.
    """
    model, has_ledger = bundle.report.model, not isinstance(bundle.report.ledger, Unknown)
    expected = model.source_sha256
    # Reports without a ledger have the fingerprint of all tensors of the checkpoint, used or not.
    got = weights_sha256(dense) if has_ledger else dense.origin
    if got != expected:
        raise InputError(f"the checkpoint's weights have sha256 {got[:12]}, the bundle's source {expected[:12]}")
    is_exported_alike = bundle.report.environment.versions.get("torch") == tool_version("torch")
    if has_ledger and is_exported_alike and architecture_sha256(dense) != model.architecture_sha256:
        raise InputError("the checkpoint's weights are the bundle's source's, but its network has other operators")
    return f"the checkpoint is the bundle's source, sha256 {expected[:12]}"


def _replay(bundle: Bundle, dense: Program, compiled: Program) -> str:
    plan = PruningPlan.read(bundle.folder / PLAN)
    for options in parse_pipeline(bundle.report.pipeline).of(FoldParameters):
        dense = options.run(dense).program
    replayed = apply_plan_to_program(dense, plan)
    got = {name: tuple(tensor.shape) for name, tensor in replayed.parameters().items()}
    expected = {name: tuple(tensor.shape) for name, tensor in compiled.parameters().items()}
    if wrong := [name for name in expected if got.get(name) != expected[name]]:
        first = f"{wrong[0]}: got {got.get(wrong[0])}, in the bundle {expected[wrong[0]]}"
        raise NumericMismatchError(f"{len(wrong)} parameters differ in shape, {first}")
    if not plan.kept:
        return "nothing was pruned"
    result = PassResult(replayed, modified=True, plan=plan)
    report = check_oracle(dense, result, dense.example_args, dense.example_kwargs)
    error = f"{report.masked_max_relative_error:.1e}, allowed {TOLERANCE:g}"
    if not report.passed:
        raise NumericMismatchError(f"the replay differs from the zeroed dense network by {error}")
    return f"{len(plan.kept)} tensors pruned to the bundle's shapes; oracle {error}"
