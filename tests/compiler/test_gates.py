import pytest

from prunec.compiler.compilation import Settings
from prunec.compiler.gates import (
    accuracy_gate,
    engine_gate,
    exit_code,
    gate_reasons,
    numeric_gate,
    sparsity_gate,
    speedup_gate,
)
from prunec.passes.errors import UsageError
from tests.compiler.sample_report import sample_fields, sample_report


def test_accuracy_gate() -> None:
    assert accuracy_gate(1.0, 0.9214, 0.9152).gate.verdict == "passed"
    assert accuracy_gate(1.0, 0.9214, 0.9152).gate.value == pytest.approx(0.62)
    assert accuracy_gate(1.0, 0.921, 0.911).gate.verdict == "passed"  # 1.0000000000000009 in floating point
    assert accuracy_gate(0.5, 0.9214, 0.9152).gate.verdict == "failed"
    assert accuracy_gate(0.0, 0.9, 0.91).gate.verdict == "passed"
    unknown = accuracy_gate(1.0, 0.9, None, "no data given.")
    assert (unknown.gate.verdict, unknown.gate.value, unknown.reason) == ("unknown", None, "no data given.")


def test_numeric_gate() -> None:
    assert numeric_gate(1e-7).gate.verdict == "passed"
    assert numeric_gate(2e-4).gate.verdict == "failed"
    assert numeric_gate(None).gate.verdict == "unknown"
    not_finite = numeric_gate(float("nan"))
    assert (not_finite.gate.verdict, not_finite.gate.value) == ("failed", None)
    assert "not finite" in (not_finite.reason or "")


def test_speedup_gate() -> None:
    assert speedup_gate(1.5, 1.5).gate.verdict == "passed"
    assert exit_code([speedup_gate(1.5, 1.49)]) == 6
    unknown = speedup_gate(1.5, None, "needs the device.")
    assert (unknown.gate.verdict, unknown.reason, exit_code([unknown])) == ("unknown", "needs the device.", 6)
    assert exit_code([unknown.allowing_unknown()]) == 0


def test_sparsity_gate() -> None:
    assert sparsity_gate(80, 8, 10).gate.verdict == "passed"
    assert exit_code([sparsity_gate(80, 7, 10)]) == 7
    assert sparsity_gate(0, 0, 0).gate.verdict == "unknown"


@pytest.mark.parametrize(
    "limits", [{"min_speedup": 0.0}, {"min_speedup": float("nan")}, {"require_sparse_percent": 101.0}]
)
def test_limits_that_mean_nothing(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Settings(**limits)  # type: ignore[arg-type]


def test_the_lowest_code_of_the_failures() -> None:
    passed, drop, numeric, engine = (
        accuracy_gate(1, 0.9, 0.9),
        accuracy_gate(1, 0.9, 0.8),
        numeric_gate(1),
        engine_gate(False),
    )
    assert exit_code([]) == 0
    assert exit_code([passed, engine_gate(True)]) == 0
    assert exit_code([drop]) == 5
    assert exit_code([numeric]) == 8
    assert exit_code([engine]) == 4
    assert exit_code([numeric, drop, passed]) == 5
    assert exit_code([numeric, drop, engine]) == 4


def test_a_gate_that_cannot_be_measured_fails_with_its_own_code() -> None:
    unknown = accuracy_gate(1, 0.9, None)
    assert exit_code([unknown]) == 5
    assert exit_code([unknown.allowing_unknown()]) == 0
    assert exit_code([unknown.allowing_unknown(), numeric_gate(float("inf")).allowing_unknown()]) == 8


def test_reasons_fit_the_report() -> None:
    checks = [numeric_gate(1e-7), accuracy_gate(1, 0.9, None, "no data given.")]
    assert gate_reasons(checks) == {"gates.1.value": "no data given."}
    report = sample_report(
        gates=tuple(check.gate for check in checks), reasons=sample_fields()["reasons"] | gate_reasons(checks)
    )
    assert report.gates[1].value is None
