"""Gates: limits that were asked for, the values found, and the exit code that follows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prunec.compiler.report import Gate, Verdict
from prunec.passes.errors import (
    AccuracyGateError,
    LatencyGateError,
    MissingDependencyError,
    NumericMismatchError,
    SparsityGateError,
)

MAX_ONNX_VS_TORCH_RELATIVE_ERROR = 1e-4
#: Gate -> exit code of a compile that fails by it.
EXIT_CODES = {
    "engine": MissingDependencyError.exit_code,
    "max_drop_points": AccuracyGateError.exit_code,
    "min_speedup": LatencyGateError.exit_code,
    "require_sparse_percent": SparsityGateError.exit_code,
    "max_onnx_vs_torch_relative_error": NumericMismatchError.exit_code,
}


@dataclass(frozen=True)
class GateCheck:
    """A gate; `reason` says why a value is missing."""

    gate: Gate
    reason: str | None = None

    @property
    def fails(self) -> bool:
        """Whether the compile fails by this gate; by an unknown one it does, unless that is allowed."""
        return self.gate.verdict == "failed" or (self.gate.verdict == "unknown" and not self.gate.allow_unknown)

    def allowing_unknown(self) -> "GateCheck":
        """The same, passing where its value is not known."""
        return replace(self, gate=self.gate.model_copy(update={"allow_unknown": True}))


def accuracy_gate(
    max_drop_points: float, dense: float | None, compiled: float | None, reason: str | None = None
) -> GateCheck:
    """At most `max_drop_points` percentage points lost from dense to compiled.

    Args:
        max_drop_points: the limit.
        dense: accuracy of the dense model on test, fraction; None where unknown.
        compiled: accuracy of the most finished form evaluated, fraction; None where unknown.
        reason: why one of them is None.
    """
    unknown = dense is None or compiled is None
    # Rounded, so that 0.921 - 0.911 is 1 point and not a hair more.
    value = None if dense is None or compiled is None else round(100 * (dense - compiled), 9)
    why = (reason or "the accuracy was not measured.") if unknown else None
    return _check("max_drop_points", max_drop_points, value, why)


def numeric_gate(
    error: float | None, limit: float = MAX_ONNX_VS_TORCH_RELATIVE_ERROR, reason: str | None = None
) -> GateCheck:
    """ONNX Runtime equals torch: max|a-b| / max|b| of at most `limit`. An error that is not finite fails."""
    name = "max_onnx_vs_torch_relative_error"
    if error is not None and not math.isfinite(error):
        gate = Gate(name=name, limit=limit, value=None, verdict="failed")
        return GateCheck(gate, f"an output of the network was not finite (error {error}).")
    why = (reason or "the outputs were not compared.") if error is None else None
    return _check(name, limit, error, why)


def engine_gate(built: bool) -> GateCheck:
    """One engine was asked for: was it built?"""
    verdict: Verdict = "passed" if built else "failed"
    return GateCheck(Gate(name="engine", limit=1, value=float(built), verdict=verdict))


def speedup_gate(min_speedup: float, measured: float | None, reason: str | None = None) -> GateCheck:
    """The compiled network is at least so many times as fast as the dense one, measured on the target.

    Args:
        min_speedup: the limit.
        measured: dense latency over compiled latency; None where it was not measured on the target.
        reason: why.
    """
    why = (reason or "the latency was not measured.") if measured is None else None
    return _check("min_speedup", min_speedup, measured, why, at_least=True)


def sparsity_gate(required_percent: float, valid: int, layers: int) -> GateCheck:
    """At least so many percent of the layers with a weight hold 2:4 in the exported model.

    Args:
        required_percent: the limit, 0 .. 100.
        valid: layers that hold 2:4.
        layers: all convolutions and linear layers, those that can't be 2:4 included.
    """
    value = 100 * valid / layers if layers else None
    why = "the network has no layer with a weight." if value is None else None
    return _check("require_sparse_percent", required_percent, value, why, at_least=True)


def exit_code(checks: Sequence[GateCheck]) -> int:
    """0 where every gate holds, else the lowest code of those that fail."""
    return min((EXIT_CODES[check.gate.name] for check in checks if check.fails), default=0)


def gate_reasons(checks: Sequence[GateCheck]) -> dict[str, str]:
    """Entries for `Report.reasons`, given that the report's gates are these checks in this order."""
    return {f"gates.{i}.value": check.reason for i, check in enumerate(checks) if check.reason is not None}


def _check(name: str, limit: float, value: float | None, reason: str | None, *, at_least: bool = False) -> GateCheck:
    verdict: Verdict = "unknown"
    if value is not None:
        verdict = "passed" if (value >= limit if at_least else value <= limit) else "failed"
    return GateCheck(Gate(name=name, limit=limit, value=value, verdict=verdict), reason)
