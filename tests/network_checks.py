"""Checks that hold for any network, which the zoo and the networks found in the wild share."""

from pathlib import Path
from typing import Any

from prunec.passes import PassResult, Program, PruneFilters, check_oracle
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.oracle import TOLERANCE, OracleReport
from prunec.passes.plan import PruningPlan
from prunec.runtime.numerics import onnx_vs_torch
from prunec.runtime.onnx_precision import to_bf16, to_fp16, to_fp32

#: Largest relative difference between two float32 computations of one function.
FLOAT32 = 1e-4


def pruned(prune: PruneFilters, program: Program) -> PassResult:
    """The result of a pass; where nothing can be pruned the program itself, under an empty plan."""
    try:
        return prune.run(program)
    except UnsupportedModelError:
        return PassResult(program, False, {"macs": program.macs(), "macs_dense": program.macs()}, PruningPlan({}))


def macs_cut(result: PassResult) -> float:
    """Share of the MACs that a pruning pass took away; 0 where there are none."""
    dense = float(result.stats["macs_dense"])
    return 1 - float(result.stats["macs"]) / dense if dense else 0.0


def check_pruned(
    program: Program, result: PassResult, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> OracleReport:
    """The pruned program equals the zeroed one, or the masked one where that differs."""
    report = check_oracle(program, result, args, kwargs)
    assert report.masked_max_relative_error < TOLERANCE, f"masked error {report.masked_max_relative_error:.2g}"
    if report.exact:
        assert report.max_relative_error < TOLERANCE, f"error {report.max_relative_error:.2g}"
    return report


def fp16_error(program: Program, path: Path, form: Path) -> float:
    """Write the float16 form of an ONNX file, which is valid for ONNX's checker and shape inference.

    Returns:
        The largest relative difference of ONNX Runtime on it from the program in float32.
    """
    to_fp16(path, form)
    return onnx_vs_torch(program, form)


def bf16_error(program: Program, path: Path, form: Path) -> float:
    """The same of the bfloat16 form, which ONNX Runtime computes in float32 with the rounded weights."""
    to_bf16(path, form)
    to_fp32(form, wide := form.with_suffix(".wide.onnx"))
    return onnx_vs_torch(program, wide)
