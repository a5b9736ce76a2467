"""Gates: limits that were asked for, the values found, and the exit code that follows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prunec.compiler.report import Gate, Verdict
from prunec.passes.errors import AccuracyGateError, MissingDependencyError, NumericMismatchError

MAX_ONNX_VS_TORCH_RELATIVE_ERROR = 1e-4


@dataclass(frozen=True)
class GateCheck:
    """A gate with the exit code it stands for; `reason` says why a value is missing."""

    gate: Gate
    exit_code: int
    reason: str | None = None

    def fails(self, allow_unknown: bool) -> bool:
        """Whether the compile fails by this gate; an unknown one does, unless that is allowed."""
        return self.gate.verdict == "failed" or (self.gate.verdict == "unknown" and not allow_unknown)


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
    return _at_most("max_drop_points", max_drop_points, value, AccuracyGateError.exit_code, why)


def numeric_gate(
    error: float | None, limit: float = MAX_ONNX_VS_TORCH_RELATIVE_ERROR, reason: str | None = None
) -> GateCheck:
    """ONNX Runtime equals torch: max|a-b| / max|b| of at most `limit`. An error that is not finite fails."""
    code = NumericMismatchError.exit_code
    name = "max_onnx_vs_torch_relative_error"
    if error is not None and not math.isfinite(error):
        gate = Gate(name=name, limit=limit, value=None, verdict="failed")
        return GateCheck(gate, code, f"an output of the network was not finite (error {error}).")
    why = (reason or "the outputs were not compared.") if error is None else None
    return _at_most(name, limit, error, code, why)


def engine_gate(built: bool) -> GateCheck:
    """One engine was asked for: was it built?"""
    verdict: Verdict = "passed" if built else "failed"
    gate = Gate(name="engine", limit=1, value=float(built), verdict=verdict)
    return GateCheck(gate, MissingDependencyError.exit_code)


def exit_code(checks: Sequence[GateCheck], *, allow_unknown: bool = False) -> int:
    """0 where every gate holds, else the lowest code of those that fail."""
    return min((check.exit_code for check in checks if check.fails(allow_unknown)), default=0)


def gate_reasons(checks: Sequence[GateCheck]) -> dict[str, str]:
    """Entries for `Report.reasons`, given that the report's gates are these checks in this order."""
    return {f"gates.{i}.value": check.reason for i, check in enumerate(checks) if check.reason is not None}


def _at_most(name: str, limit: float, value: float | None, code: int, reason: str | None) -> GateCheck:
    verdict: Verdict = "unknown" if value is None else "passed" if value <= limit else "failed"
    return GateCheck(Gate(name=name, limit=limit, value=value, verdict=verdict), code, reason)
