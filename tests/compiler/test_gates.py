from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from prunec.compiler.facts.settings import Settings
from prunec.compiler.gates.gate import Gate
from prunec.compiler.gates.gate_catalogue import GATES, asked_gates
from prunec.compiler.gates.judging import gates_of, judge, judged, judged_anew
from prunec.compiler.gates.own_gates import (
    EngineBuilt,
    MaxDropPoints,
    MaxLatencyMs,
    MaxOnnxVsTorch,
    MaxSizeMb,
    MinSpeedup,
    RequireSparsePercent,
)
from prunec.compiler.report.report import Report
from prunec.passes.errors import InputError, MissingDependencyError, UsageError
from prunec.passes.unknown import Unknown, known
from tests.compiler.sample_report import sample_fields, sample_report
from tests.plugins.install import installed

NOT_MEASURED = Unknown("nobody looked.")
MEDIAN_MS = sample_fields()["latency_cpu"].compiled_ms.median


def with_accuracy(dense: float | Unknown, exported: float | Unknown, engine: float | Unknown = NOT_MEASURED) -> Report:
    part = sample_fields()["accuracy"].model_copy(update={"dense": dense, "exported": exported, "engine": engine})
    return sample_report(accuracy=part)


def with_latency(speedup: float | Unknown) -> Report:
    cpu = sample_fields()["latency_cpu"]
    unknown = isinstance(speedup, Unknown)
    return sample_report(latency=speedup if unknown else cpu.model_copy(update={"speedup": speedup}))


def with_engine_bytes(count: int | Unknown) -> Report:
    return sample_report(size_bytes=sample_fields()["size_bytes"].model_copy(update={"engine": count}))


def with_error(error: float | Unknown) -> Report:
    numerics = sample_fields()["numerics"]
    return sample_report(numerics=numerics.model_copy(update={"onnx_vs_torch_max_relative_error": error}))


def with_sparse(valid: int, layers: int) -> Report:
    layer = sample_fields()["layers"][1]
    sparsity = layer.sparsity.model_copy(update={"valid": False})
    dense = layer.model_copy(update={"sparsity": sparsity})
    return sample_report(layers=(layer,) * valid + (dense,) * (layers - valid))


@pytest.mark.parametrize(
    ("gate", "report", "verdict", "value"),
    [
        (MaxDropPoints(1.0), with_accuracy(0.9214, 0.9152), "passed", 0.62),
        (MaxDropPoints(1.0), with_accuracy(0.921, 0.911), "passed", 1.0),  # 1.0000000000000009 in floating point
        (MaxDropPoints(0.5), with_accuracy(0.9214, 0.9152), "failed", 0.62),
        (MaxDropPoints(0.0), with_accuracy(0.9, 0.91), "passed", -1.0),
        (MaxDropPoints(1.0), with_accuracy(0.9, 0.9, 0.8), "failed", 10.0),  # the engine's, where it was measured
        (MaxDropPoints(1.0), with_accuracy(0.9, NOT_MEASURED), "unknown", NOT_MEASURED),
        (MaxDropPoints(1.0), with_accuracy(NOT_MEASURED, 0.9), "unknown", NOT_MEASURED),
        (MaxOnnxVsTorch(), with_error(1e-7), "passed", 1e-7),
        (MaxOnnxVsTorch(), with_error(2e-4), "failed", 2e-4),
        (MaxOnnxVsTorch(), with_error(NOT_MEASURED), "unknown", NOT_MEASURED),
        (MinSpeedup(1.5), with_latency(1.5), "passed", 1.5),
        (MinSpeedup(1.5), with_latency(1.49), "failed", 1.49),
        (MinSpeedup(1.5), with_latency(NOT_MEASURED), "unknown", NOT_MEASURED),
        (RequireSparsePercent(80), with_sparse(8, 10), "passed", 80.0),
        (RequireSparsePercent(80), with_sparse(7, 10), "failed", 70.0),
        (MaxLatencyMs(MEDIAN_MS), with_latency(1.5), "passed", MEDIAN_MS),
        (MaxLatencyMs(MEDIAN_MS - 0.01), with_latency(1.5), "failed", MEDIAN_MS),
        (MaxLatencyMs(1), with_latency(NOT_MEASURED), "unknown", NOT_MEASURED),
        (MaxSizeMb(0.5), with_engine_bytes(500_000), "passed", 0.5),
        (MaxSizeMb(0.5), with_engine_bytes(500_001), "failed", 0.500001),
        (MaxSizeMb(0.5), with_engine_bytes(NOT_MEASURED), "unknown", NOT_MEASURED),
        (EngineBuilt(), sample_report(), "passed", 1.0),
        (EngineBuilt(), sample_report(engine=NOT_MEASURED), "failed", 0.0),
    ],
)
def test_verdicts(gate: Gate, report: Report, verdict: str, value: float | Unknown) -> None:
    row = judge(gate, report)
    assert (row.name, row.limit, row.verdict) == (gate.name, gate.limit, verdict)
    assert row.value == (value if isinstance(value, Unknown) else pytest.approx(value))


def test_margins_stand_beside_what_is_measured_with_an_error() -> None:
    # Two shares of 10,000 images: 1.96 sqrt(0.9 * 0.1 / 10000 + 0.8 * 0.2 / 10000) = 0.98 points.
    data = sample_fields()["data"].model_copy(update={"test_images": 10_000})
    report = sample_report(data=data, accuracy=with_accuracy(0.9, 0.8).accuracy)
    assert judge(MaxDropPoints(20), report).margin == pytest.approx(0.98)
    latency = with_latency(1.5)
    low, high = known(latency.latency).speedup_interval  # type: ignore[union-attr]
    assert judge(MinSpeedup(1), latency).margin == pytest.approx((high - low) / 2)
    assert judge(MaxLatencyMs(1), latency).margin == pytest.approx(MEDIAN_MS * (high - low) / 2 / 1.5)
    without = [(MinSpeedup(1), with_latency(NOT_MEASURED)), (MaxDropPoints(1), with_accuracy(0.9, NOT_MEASURED))]
    assert [judge(gate, each).margin for gate, each in without] == [None, None]
    assert judge(EngineBuilt(), sample_report()).margin is None


def test_without_layers_there_is_no_share_of_them() -> None:
    row = judge(RequireSparsePercent(0), sample_report(layers=()))
    assert row.verdict == "unknown"
    assert row.value == Unknown("the network has no layer with a weight.")


@pytest.mark.parametrize(
    "limits",
    [
        {"max_drop_points": float("nan")},
        {"min_speedup": 0.0},
        {"min_speedup": float("nan")},
        {"require_sparse_percent": 101.0},
        {"gates": ("max_drop_points{limit=nan}",)},
        {"gates": ("max_drop_points{limit=inf}",)},
        {"gates": ("min_speedup{limit=-1}",)},
        {"gates": ("require_sparse_percent{limit=500}",)},
        {"gates": ("engine{limit=nan}",), "build_engine": False},
    ],
)
def test_limits_that_mean_nothing(limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="limit of the gate"):
        asked_gates(Settings(**limits))


@pytest.mark.parametrize("seeds", [{"seed": -1}, {"seed": 2**63}, {"seed": 2**63 - 2, "seeds": 3}])
def test_seeds_that_no_library_takes(seeds: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="seed is"):
        Settings(**seeds)  # type: ignore[arg-type]
    assert Settings(seed=2**63 - 2, seeds=2).seeds == 2


@dataclass(frozen=True)
class Told:
    """A gate of a plug-in whose value is what the test puts there."""

    limit: float
    name: ClassVar[str] = "told"
    exit_code: ClassVar[Any] = 12
    label: ClassVar[Any] = "told"
    unit: ClassVar[str] = ""
    figure: ClassVar[Any] = 1.0

    def value(self, report: Report) -> Any:
        if isinstance(self.figure, BaseException):
            raise self.figure
        return self.figure


class NoDataclass:
    name, exit_code, label, unit, limit = "told", 12, "told", "", 1.0
    value = Told.value


@dataclass(frozen=True)
class NoLimit:
    name: ClassVar[str] = "told"
    exit_code: ClassVar[int] = 12
    label: ClassVar[str] = "told"
    unit: ClassVar[str] = ""
    value: ClassVar[Any] = Told.value


@pytest.fixture
def plugged(tmp_path: Path) -> Iterator[None]:
    with installed(tmp_path / "site", GATES.group, told=f"{__name__}:Told"):
        yield


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize("code", [-1, 0, 1, 126, 300, 2.5, None, True])
def test_exit_codes_that_no_gate_may_have(monkeypatch: pytest.MonkeyPatch, code: Any) -> None:
    monkeypatch.setattr(Told, "exit_code", code)
    with pytest.raises(MissingDependencyError, match=r"exit_code is .*, expected 2 to 125"):
        asked_gates(Settings(gates=("told{limit=1}",)))
    monkeypatch.setattr(Told, "exit_code", 125)
    assert asked_gates(Settings(gates=("told{limit=1}",)))[-1].exit_code == 125


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("math:pi", "frozen dataclass"),
        (f"{__name__}:NoDataclass", "frozen dataclass"),
        (f"{__name__}:NoLimit", "limit"),
    ],
)
def test_what_is_no_gate_is_refused_when_it_is_asked_for(location: str, words: str, tmp_path: Path) -> None:
    with installed(tmp_path / "site", GATES.group, told=location), pytest.raises(MissingDependencyError, match=words):
        asked_gates(Settings(gates=("told",)))


@pytest.mark.usefixtures("plugged")
def test_a_gate_has_words_for_the_report_and_a_finite_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="limit of the gate told is nan"):
        asked_gates(Settings(gates=("told{limit=nan}",)))
    monkeypatch.setattr(Told, "label", None)
    with pytest.raises(MissingDependencyError, match="text as its label"):
        asked_gates(Settings(gates=("told{limit=1}",)))


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (RuntimeError("boom"), "'told' of plugged failed: RuntimeError: boom"),
        (InputError("no such file."), "no such file"),
        (None, "gave None, which is no number"),
        ("3", "gave '3', which is no number"),
        (True, "gave True, which is no number"),
    ],
)
def test_a_gate_that_fails_is_unknown_and_costs_no_report(
    monkeypatch: pytest.MonkeyPatch, figure: Any, words: str
) -> None:
    monkeypatch.setattr(Told, "figure", figure)
    report = judged(sample_report(), [Told(1)], allow_unknown=False)
    assert (report.gates[0].verdict, report.exit_code) == ("unknown", 12)
    assert words in report.reasons["gates.0.value"]
    assert Report.from_json(report.to_json()) == report
    assert judged(sample_report(), [Told(1)], allow_unknown=True).exit_code == 0


@pytest.mark.parametrize("figure", [3, np.float32(3), np.int64(3), torch.tensor(3)])
def test_scalars_of_libraries_are_numbers(monkeypatch: pytest.MonkeyPatch, figure: Any) -> None:
    monkeypatch.setattr(Told, "figure", figure)
    assert (judge(Told(3), sample_report()).value, judge(Told(4), sample_report()).verdict) == (3.0, "failed")


DROP, NUMERIC, ENGINE, SPARSE, LATENCY = (
    MaxDropPoints(0.1),
    MaxOnnxVsTorch(1e-9),
    EngineBuilt(limit=2),
    RequireSparsePercent(100),
    MinSpeedup(9),
)


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        ([], 0),
        ([MaxDropPoints(1)], 0),
        ([DROP], 5),
        ([NUMERIC], 8),
        ([ENGINE], 4),
        ([SPARSE], 7),
        ([LATENCY], 6),
        ([NUMERIC, DROP, MaxDropPoints(1)], 5),
        ([NUMERIC, DROP, ENGINE], 4),
    ],
)
def test_the_lowest_code_of_the_failures(gates: list[Gate], code: int) -> None:
    report = judged(sample_report(), gates, allow_unknown=False)
    assert report.exit_code == code
    assert report.passed == (code == 0)
    assert [row.name for row in report.gates] == [gate.name for gate in gates]


def test_a_gate_that_cannot_be_measured_fails_with_its_own_code_and_says_why() -> None:
    report = judged(with_accuracy(0.9, NOT_MEASURED), [MaxOnnxVsTorch(), MaxDropPoints(1)], allow_unknown=False)
    assert report.exit_code == 5
    assert report.reasons["gates.1.value"] == "nobody looked."
    assert judged(with_accuracy(0.9, NOT_MEASURED), [MaxDropPoints(1)], allow_unknown=True).exit_code == 0
    failing = judged(with_accuracy(0.9, NOT_MEASURED), [MaxDropPoints(1), NUMERIC], allow_unknown=True)
    assert failing.exit_code == 8


def test_gates_of_one_reason_have_it_each() -> None:
    report = judged(with_accuracy(NOT_MEASURED, NOT_MEASURED), [MaxDropPoints(1), MinSpeedup(1)], allow_unknown=False)
    again = report.model_copy(update={"latency": NOT_MEASURED})
    again = judged_anew(again, gates_of(again))
    assert again.reasons["gates.0.value"] == again.reasons["gates.1.value"] == "nobody looked."


def test_judging_anew_keeps_what_was_allowed_and_asks_for_an_engine() -> None:
    report = judged(with_accuracy(0.9, NOT_MEASURED), [MaxDropPoints(1)], allow_unknown=True)
    again = Report.from_json(report.to_json())
    again = judged_anew(again, gates_of(again))
    assert [(row.name, row.allow_unknown) for row in again.gates] == [("max_drop_points", True), ("engine", False)]
    assert again.exit_code == 0
    again = again.model_copy(update={"engine": NOT_MEASURED})
    assert judged_anew(again, gates_of(again)).exit_code == 4


def test_a_figure_that_is_not_finite_fails_also_where_unknown_ones_pass() -> None:
    @dataclass(frozen=True)
    class Endless:
        limit: float = 1.0
        name: ClassVar[str] = "max_endless"
        exit_code: ClassVar[int] = 12
        label: ClassVar[str] = "endless"
        unit: ClassVar[str] = ""

        def value(self, report: Report) -> float | Unknown:
            return float("inf")

    report = judged(sample_report(), [Endless()], allow_unknown=True)
    assert (report.exit_code, report.gates[0].verdict) == (12, "failed")
    assert "not finite" in report.reasons["gates.0.value"]


def test_gates_that_are_asked_for() -> None:
    assert [gate.name for gate in asked_gates(Settings())] == [
        "max_onnx_vs_torch_relative_error", "engine", "min_done_percent"
    ]  # fmt: skip
    settings = Settings(build_engine=False, max_drop_points=1, gates=("min_speedup{limit=2}",))
    assert asked_gates(settings)[2:] == [MaxDropPoints(1), MinSpeedup(2.0)]
    with pytest.raises(UsageError, match="asked for twice"):
        asked_gates(Settings(max_drop_points=1, gates=("max_drop_points{limit=2}",)))
    with pytest.raises(UsageError, match=r"no gate 'min_speed'.*\n.*min_speedup"):
        asked_gates(Settings(gates=("min_speed{limit=2}",)))
    with pytest.raises(UsageError, match="limit"):
        asked_gates(Settings(gates=("min_speedup",)))
    assert all(GATES.load(name).name == name for name in GATES.own)
