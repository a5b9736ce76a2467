"""What no gate covers ends behind ``but:``, and under ``--strict`` in an exit code."""

from typing import Any

import pytest

from prunec.compiler.gates.doubts import (
    CalibrationLimitMet,
    MasksRunFaster,
    MaxAskedMsRatio,
    MinAskedSpeedupPercent,
    NotSlower,
    VendorSupport,
    strict_gates,
)
from prunec.compiler.gates.gate import Gate
from prunec.compiler.gates.judging import gates_of, judged, judged_anew
from prunec.compiler.gates.own_gates import MaxDropPoints, MinSpeedup
from prunec.compiler.report.report import Report
from prunec.compiler.report.report_text import report_line, summary_rows
from prunec.compiler.report.training_parts import PlausibilityPart
from prunec.passes.unknown import Unknown, known
from tests.compiler.sample_report import sample_report

NOT_MEASURED = Unknown("nobody looked.")


def doubtful(
    drop: float = 0.0, speedup: tuple[float, float] | None = None, outside: str = "", **asked: float
) -> Report:
    report = sample_report(gates=())
    accuracy = report.accuracy.model_copy(update={"dense": 0.9, "engine": 0.9 - drop / 100})
    engine = known(report.engine)
    latency: Any = NOT_MEASURED
    if speedup is not None:
        measured = known(report.latency_cpu)
        assert measured is not None
        latency = measured.model_copy(update={"speedup": sum(speedup) / 2, "speedup_interval": speedup} | asked)
    assert engine is not None
    engine = engine.model_copy(update={"outside_support": outside})
    return report.model_copy(update={"accuracy": accuracy, "latency": latency, "engine": engine})


CASES: list[tuple[dict[str, Any], str, int, Gate]] = [
    ({"drop": 5.1}, "5.10 points of accuracy lost", 5, MaxDropPoints(10)),
    ({"speedup": (0.38, 0.44)}, "slower than the dense network, 0.41x", 6, MinSpeedup(0.3)),
    ({"speedup": (1.78, 1.80), "asked_speedup": 2.0}, "1.79x measured, 2x asked for", 6, MinAskedSpeedupPercent(80)),
    ({"speedup": (1.4, 1.6), "asked_ms": 0.3}, "0.338 ms measured, 0.3 ms asked for", 6, MaxAskedMsRatio(9)),
    (
        {"outside": "Toaster is not in the vendor's support matrix."},
        "Toaster is not in the vendor's",
        4,
        VendorSupport(0),
    ),
]


@pytest.mark.parametrize(("case", "words", "code", "covering"), CASES)
def test_a_doubt_stands_in_the_last_line_and_fails_where_it_is_strict(
    case: dict[str, Any], words: str, code: int, covering: Gate
) -> None:
    report = judged(doubtful(**case), [], allow_unknown=False)
    assert report.exit_code == 0
    passed, _, but, command = report_line(report).split(" | ")
    assert passed == "PASSED"
    assert but.startswith(f"but: {words}")
    assert command == report.command
    assert any(label == "But" and value.startswith(words) for label, value in summary_rows(report))
    strict = judged(doubtful(**case), [], allow_unknown=False, strict=True)
    assert strict.exit_code == code
    assert report_line(strict).startswith("FAILED | ")
    assert "but:" not in report_line(strict)
    # A gate that was asked for decides instead.
    for is_strict in (False, True):
        covered = judged(doubtful(**case), [covering], allow_unknown=False, strict=is_strict)
        assert covered.exit_code == 0
        assert covered.warnings == ()


@pytest.mark.parametrize(
    "case",
    [
        *({"drop": 5.0}, {"drop": -3.0}, {"speedup": (0.97, 1.01)}, {"speedup": (1.5, 1.6)}, {}),
        *({"asked_speedup": 2.0}, {"speedup": (1.80, 1.82), "asked_speedup": 2.0}),
        *({"asked_ms": 9.0}, {"speedup": (1.4, 1.6), "asked_ms": 0.338 / 1.1}),
    ],
)
def test_what_is_within_limits_or_not_known_raises_no_doubt(case: dict[str, Any]) -> None:
    report = judged(doubtful(**case), [], allow_unknown=False, strict=True)
    assert report.warnings == ()
    assert report.exit_code == 0
    assert "but:" not in report_line(report)


def test_several_failures_end_with_the_lowest_code() -> None:
    report = doubtful(drop=9, speedup=(0.2, 0.3), outside="Toaster isn't supported.")
    assert judged(report, [], allow_unknown=False, strict=True).exit_code == 4
    assert len(known(judged(report, [], allow_unknown=False).warnings) or ()) == 3


def test_strict_adds_no_gate_twice() -> None:
    names = [gate.name for gate in strict_gates([MaxDropPoints(1)])]
    assert names == [
        *(NotSlower.name, MinAskedSpeedupPercent.name, MaxAskedMsRatio.name),
        *(CalibrationLimitMet.name, VendorSupport.name, MasksRunFaster.name),
    ]


def test_judging_anew_keeps_strictness_and_reads_back() -> None:
    report = judged(doubtful(), [], allow_unknown=False, strict=True)
    again = Report.from_json(report.to_json())
    assert again == report
    slower = doubtful(speedup=(0.2, 0.3)).latency
    again = again.model_copy(update={"latency": slower})
    assert judged_anew(again, gates_of(again)).exit_code == 6


def test_implausible_data_that_were_allowed_are_a_doubt() -> None:
    found = PlausibilityPart(samples=320, distance=2.1, findings=("test data: they are upside down (numbers)",))
    report = judged(doubtful().model_copy(update={"plausibility": found}), [], allow_unknown=False)
    assert "but: implausible test data: they are upside down (numbers)" in report_line(report)
    assert Report.from_json(report.to_json()).plausibility == found
