"""``prunec verify``: does a bundle hold what its report says?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import from_numpy, no_grad

from prunec.compiler.artifacts import bundle_onnx, bundle_problems, bundle_program
from prunec.compiler.backend import MODEL_ONNX
from prunec.compiler.bundle import Bundle, read_bundle
from prunec.compiler.gates import MAX_ONNX_VS_TORCH_RELATIVE_ERROR
from prunec.compiler.pipeline import parse_pipeline
from prunec.compiler.project import ModelOptions, Project
from prunec.passes.base import PassResult
from prunec.passes.errors import InputError, NumericMismatchError, PrunecError, SparsityGateError
from prunec.passes.fold import FoldParameters
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.rewrite import apply_plan_to_program
from prunec.runtime.engines.building import has_device
from prunec.runtime.engines.onnxruntime import OnnxRuntimeEngine
from prunec.runtime.engines.tensorrt_run import TensorRTEngine
from prunec.runtime.numerics import batch_sizes, onnx_vs_torch, random_inputs
from prunec.runtime.onnx_sparsity import check_sparsity
from prunec.runtime.target import Target

#: Largest relative difference of an engine's outputs from torch in float32, by its precision.
ENGINE_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1}
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
    """Check a bundle.

    Args:
        path: its folder.
        source: the dense checkpoint it was compiled from; then the pruning plan is replayed on it.
        config: project file of the source.
        model: how to read the source.

    Raises:
        PrunecError: the bundle or the source can't be read at all.
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
    claimed = [layer.name for layer in bundle.report.layers if layer.sparsity is not None and layer.sparsity.valid]
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
    name, engine, target = "engine", bundle.report.engine, Target.parse(bundle.report.target)
    if engine is None:
        return Check(name, "skipped", f"the bundle has none: {bundle.report.reasons.get('engine', 'no reason given')}")
    if target.is_nvidia and not has_device(target):
        return Check(name, "skipped", f"{engine.path} runs on {target.info.title} only, which isn't here")
    path = bundle.folder / engine.path
    return _check(
        lambda: _within(
            engine_error(program, target, path, engine.kind), ENGINE_TOLERANCE[target.precision], engine.path, "torch"
        ),
        name,
    )


def engine_error(program: Program, target: Target, path: Path, kind: str) -> float:
    """Largest relative difference of an engine, run here, from torch.

    Args:
        program: the compiled program.
        target: what the engine is for.
        path: the engine's file.
        kind: what loads it: "onnxruntime", "tensorrt" or "tensorrt_rtx".

    Returns:
        max|a-b| / max|b| over the outputs.
    """
    batch = batch_sizes(program, (2,))[0]
    inputs = random_inputs(program, batch, _SEED)
    if target.is_nvidia:
        with TensorRTEngine(path, kind) as engine:
            outputs = engine(*inputs)
    else:
        outputs = OnnxRuntimeEngine(path)(*inputs)
    with no_grad():
        expected = program(*(from_numpy(np.asarray(array)) for array in inputs))
    return relative_error([from_numpy(array) for array in outputs], expected)


def same_source(bundle: Bundle, dense: Program) -> str:
    """Say that a dense program is what a bundle was compiled from.

    Raises:
        InputError: it isn't.
    """
    expected = bundle.report.model.source_sha256
    if dense.origin != expected:
        raise InputError(
            f"the checkpoint's weights have sha256 {dense.origin[:12]}, the bundle's source {expected[:12]}"
        )
    return f"the checkpoint is the bundle's source, sha256 {expected[:12]}"


def _replay(bundle: Bundle, dense: Program, compiled: Program) -> str:
    plan = PruningPlan.from_json((bundle.folder / "plan.json").read_text(encoding="utf-8"))
    for step in parse_pipeline(bundle.report.pipeline).steps:
        if isinstance(step.options, FoldParameters):
            dense = step.options.run(dense).program
    replayed = apply_plan_to_program(dense, plan)
    found = {name: tuple(tensor.shape) for name, tensor in replayed.parameters().items()}
    expected = {name: tuple(tensor.shape) for name, tensor in compiled.parameters().items()}
    if wrong := [name for name in expected if found.get(name) != expected[name]]:
        name = wrong[0]
        raise NumericMismatchError(
            f"{len(wrong)} parameters differ in shape, {name}: got {found.get(name)}, in the bundle {expected[name]}"
        )
    if not plan.kept:
        return "nothing was pruned"
    result = PassResult(replayed, modified=True, plan=plan)
    report = check_oracle(dense, result, dense.example_args, dense.example_kwargs)
    if not report.passed:
        raise NumericMismatchError(
            f"the replay differs from the zeroed dense network by {report.masked_max_relative_error:.1e}, "
            f"allowed {TOLERANCE:g}"
        )
    return (
        f"{len(plan.kept)} tensors pruned to the bundle's shapes; oracle {report.masked_max_relative_error:.1e}, "
        f"allowed {TOLERANCE:g}"
    )
