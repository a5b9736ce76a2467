"""Doubts: what speaks against a result that no gate was asked to judge. Under ``--strict`` they are gates."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from prunec.compiler.gates.gate import Asked, Foreseen, Gate, untimed
from prunec.compiler.gates.own_gates import MaxDropPoints
from prunec.compiler.report.layer_choice_words import layer_choice, loss_words
from prunec.compiler.report.masking_words import theoretical_masks, theoretical_words
from prunec.compiler.report.report import Report
from prunec.passes.errors import AccuracyGateError, LatencyGateError, MissingDependencyError, SparsityGateError
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown, known

#: Points of accuracy that may be lost without a word.
UNASKED_DROP_POINTS = 5.0


@dataclass(frozen=True)
class NotSlower:
    """The compiled network isn't slower than the dense one, measured on the target, beyond the measurement's error."""

    limit: float = 1
    name: ClassVar[str] = "not_slower"
    exit_code: ClassVar[int] = LatencyGateError.exit_code
    label: ClassVar[str] = "upper end of the measured speed-up"
    unit: ClassVar[str] = "x"

    def value(self, report: Report) -> float | Unknown:
        """The upper end of the interval of dense over compiled latency."""
        return report.latency if isinstance(report.latency, Unknown) else report.latency.speedup_interval[1]

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether no latency can be measured."""
        return untimed(asked)


@dataclass(frozen=True)
class MinAskedSpeedupPercent:
    """At least this share of the speed-up in time that the recipe asks for is measured on the target."""

    limit: float = 90
    name: ClassVar[str] = "min_asked_speedup_percent"
    exit_code: ClassVar[int] = LatencyGateError.exit_code
    label: ClassVar[str] = "measured of the speed-up asked for"
    unit: ClassVar[str] = " %"

    def value(self, report: Report) -> float | Unknown:
        """Percent; 100 where no speed-up in time was asked for."""
        latency = report.latency
        if isinstance(latency, Unknown):
            return latency
        return 100.0 if latency.asked_speedup is None else 100 * latency.speedup / latency.asked_speedup


@dataclass(frozen=True)
class MaxAskedMsRatio:
    """The compiled network takes at most so many times the milliseconds that the recipe asks for on the target."""

    limit: float = 1.11
    name: ClassVar[str] = "max_asked_ms_ratio"
    exit_code: ClassVar[int] = LatencyGateError.exit_code
    label: ClassVar[str] = "measured over asked milliseconds"
    unit: ClassVar[str] = ""

    def value(self, report: Report) -> float | Unknown:
        """Median milliseconds over those asked for; 1 where none were asked for."""
        latency = report.latency
        if isinstance(latency, Unknown):
            return latency
        return 1.0 if latency.asked_ms is None else latency.compiled_ms.median / latency.asked_ms


@dataclass(frozen=True)
class CalibrationLimitMet:
    """INT8 loses no more on held-back samples than calibrate is asked for."""

    limit: float = 1
    name: ClassVar[str] = "calibration_limit_met"
    exit_code: ClassVar[int] = AccuracyGateError.exit_code
    label: ClassVar[str] = "limits of what INT8 loses that are met"
    unit: ClassVar[str] = ""

    def value(self, report: Report) -> float | Unknown:
        """1 where the limit is met or none was asked for, else 0."""
        choice = layer_choice(report)
        return float(choice is None or choice.is_met)


@dataclass(frozen=True)
class VendorSupport:
    """The target is in the support matrix of the engine's vendor."""

    limit: float = 1
    name: ClassVar[str] = "vendor_support"
    exit_code: ClassVar[int] = MissingDependencyError.exit_code
    label: ClassVar[str] = "engines that the vendor supports on the target"
    unit: ClassVar[str] = ""

    def value(self, report: Report) -> float | Unknown:
        """1 where the vendor supports the engine, else 0."""
        outside = report.engine if isinstance(report.engine, Unknown) else report.engine.outside_support
        return outside if isinstance(outside, Unknown) else float(not outside)

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether the engine that is built lies outside the vendor's support."""
        hint = "Compile on the device itself, for another device, or without an engine (--no-engine)."
        return Foreseen(asked.outside_support, hint, fails=True) if asked.outside_support else None


@dataclass(frozen=True)
class MasksRunFaster:
    """Every mask is one that the target has kernels for."""

    limit: float = 1
    name: ClassVar[str] = "masks_run_faster"
    exit_code: ClassVar[int] = SparsityGateError.exit_code
    label: ClassVar[str] = "masks that the target has kernels for"
    unit: ClassVar[str] = ""

    def value(self, report: Report) -> float | Unknown:
        """1 where the target has kernels for every mask, else 0."""
        return report.masking if isinstance(report.masking, Unknown) else float(not theoretical_masks(report))

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether a step masks to a pattern that no target has kernels for."""
        others = [step.pattern for step in asked.pipeline.of(Sparsify) if step.pattern != TWO_FOUR]
        if not others:
            return None
        return Foreseen(f"no target has kernels for {others[0]}.", "Leave out --strict, or mask to 2:4.", fails=True)


@dataclass(frozen=True)
class _Doubt:
    """A gate that is there without being asked for, names of gates that cover it, and its failure in words."""

    gate: Gate
    covered_by: frozenset[str]
    words: Callable[[Report, float], str]

    def said(self, report: Report) -> str:
        """The words where the gate fails; empty where it passes, isn't known or is covered."""
        value = self.gate.value(report)
        if isinstance(value, Unknown) or self.covered_by & {row.name for row in report.gates}:
            return ""
        is_within = value <= self.gate.limit if self.gate.name.startswith("max_") else value >= self.gate.limit
        return "" if is_within else self.words(report, value)


def _slower(report: Report, _: float) -> str:
    latency = known(report.latency)
    assert latency is not None, "the gate's value comes from it"
    return f"slower than the dense network, {latency.speedup:.2f}x"


def _short_of_speedup(report: Report, _: float) -> str:
    latency = known(report.latency)
    assert latency is not None, "the gate's value comes from it"
    return f"{latency.speedup:.2f}x measured, {latency.asked_speedup:g}x asked for"


def _over_ms(report: Report, _: float) -> str:
    latency = known(report.latency)
    assert latency is not None, "the gate's value comes from it"
    return f"{latency.compiled_ms.median:.3g} ms measured, {latency.asked_ms:g} ms asked for"


def _over_limit(report: Report, _: float) -> str:
    choice = layer_choice(report)
    assert choice is not None, "the gate's value comes from it"
    return f"calibrate: {loss_words(choice)}, {choice.measure}={choice.limit:g} asked for"


def _outside(report: Report, _: float) -> str:
    engine = known(report.engine)
    assert engine is not None, "the gate's value comes from it"
    return str(known(engine.outside_support)).removesuffix(".")


def _theoretical(report: Report, _: float) -> str:
    return "; ".join(theoretical_words(part, report.target) for part in theoretical_masks(report))


_DOUBTS = (
    _Doubt(
        MaxDropPoints(UNASKED_DROP_POINTS),
        frozenset({MaxDropPoints.name}),
        lambda report, lost: f"{lost:.2f} points of accuracy lost, and no limit was given (--max-drop-points)",
    ),
    _Doubt(NotSlower(), frozenset({NotSlower.name, "min_speedup", "max_latency_ms"}), _slower),
    _Doubt(MinAskedSpeedupPercent(), frozenset({MinAskedSpeedupPercent.name}), _short_of_speedup),
    _Doubt(MaxAskedMsRatio(), frozenset({MaxAskedMsRatio.name}), _over_ms),
    _Doubt(CalibrationLimitMet(), frozenset({CalibrationLimitMet.name}), _over_limit),
    _Doubt(VendorSupport(), frozenset({VendorSupport.name}), _outside),
    _Doubt(MasksRunFaster(), frozenset({MasksRunFaster.name}), _theoretical),
)


def strict_gates(asked: Iterable[Gate]) -> list[Gate]:
    """The gates that ``--strict`` adds to those that were asked for."""
    names = {gate.name for gate in asked}
    return [doubt.gate for doubt in _DOUBTS if not doubt.covered_by & names]


def doubts(report: Report) -> tuple[str, ...]:
    """What speaks against a result in words: implausible data, and what no gate covers."""
    plausibility = known(report.plausibility)
    findings = () if plausibility is None else tuple(f"implausible {each}" for each in plausibility.findings)
    return (*findings, *(words for doubt in _DOUBTS if (words := doubt.said(report))))
