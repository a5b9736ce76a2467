"""prunec's own gates."""

import math
from dataclasses import dataclass
from typing import ClassVar

from prunec.compiler.gates.gate import Asked, Foreseen, Gate, untimed
from prunec.compiler.pipeline.own_steps import OWN_STEPS
from prunec.compiler.pipeline.pipeline import Step
from prunec.compiler.report.network_parts import AimPart
from prunec.compiler.report.report import Report
from prunec.passes.errors import (
    AccuracyGateError,
    LatencyGateError,
    MissingDependencyError,
    NumericMismatchError,
    SparsityGateError,
    UsageError,
)
from prunec.passes.patterns.pattern import TWO_FOUR
from prunec.passes.sparsify import Sparsify
from prunec.passes.unknown import Unknown, known

MAX_ONNX_VS_TORCH_RELATIVE_ERROR = 1e-4
#: Share of what a step was asked for that it must reach.
MIN_DONE_PERCENT = 50.0
#: Standard errors on either side of a figure that hold it 95 times of 100, of the normal distribution.
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class MaxOnnxVsTorch:
    """ONNX Runtime equals torch, max|a-b| / max|b|."""

    limit: float = MAX_ONNX_VS_TORCH_RELATIVE_ERROR
    name: ClassVar[str] = "max_onnx_vs_torch_relative_error"
    exit_code: ClassVar[int] = NumericMismatchError.exit_code
    label: ClassVar[str] = "ONNX against torch, relative error"
    unit: ClassVar[str] = ""

    def value(self, report: Report) -> float | Unknown:
        """The largest relative error over the outputs."""
        return report.numerics.onnx_vs_torch_max_relative_error


@dataclass(frozen=True)
class EngineBuilt:
    """An engine was built."""

    limit: float = 1
    name: ClassVar[str] = "engine"
    exit_code: ClassVar[int] = MissingDependencyError.exit_code
    label: ClassVar[str] = "engines built"
    unit: ClassVar[str] = ""

    def value(self, report: Report) -> float | Unknown:
        """The number of engines."""
        return float(known(report.engine) is not None)

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether no engine was asked for."""
        return Foreseen(asked.no_engine, "Leave one of the two out.", fails=True) if asked.no_engine else None


@dataclass(frozen=True)
class MinDonePercent:
    """Every step reaches at least this share of what it was asked for."""

    limit: float = MIN_DONE_PERCENT
    name: ClassVar[str] = "min_done_percent"
    exit_code: ClassVar[int] = SparsityGateError.exit_code
    label: ClassVar[str] = "done of what was asked"
    unit: ClassVar[str] = " %"

    def value(self, report: Report) -> float | Unknown:
        """Percent of the step that reached least; 100 where no step was asked for an amount."""
        if isinstance(report.steps, Unknown):
            return report.steps
        aims = [step.aim for step in report.steps]
        if unknown := [aim for aim in aims if isinstance(aim, Unknown)]:
            return unknown[0]
        return 100 * min((aim.share for aim in aims if isinstance(aim, AimPart)), default=1.0)


@dataclass(frozen=True)
class MaxDropPoints:
    """At most this many percentage points are lost from the dense network to the most finished form evaluated."""

    limit: float
    name: ClassVar[str] = "max_drop_points"
    exit_code: ClassVar[int] = AccuracyGateError.exit_code
    label: ClassVar[str] = "accuracy lost"
    unit: ClassVar[str] = " points"

    def __post_init__(self) -> None:
        _check_limit(self, math.isfinite(self.limit), "a finite number of percentage points")

    def value(self, report: Report) -> float | Unknown:
        """Points lost, negative where the compiled network is better."""
        dense, final = report.accuracy.dense, _final_accuracy(report)
        if isinstance(dense, Unknown):
            return dense
        # Rounded, so that 0.921 - 0.911 is 1 point and not a hair more.
        return final if isinstance(final, Unknown) else round(100 * (dense - final), 9)

    def margin(self, report: Report) -> float | None:
        """Points by which the test data's being a sample may move the difference, as if of two samples (binomial).

        Both accuracies are of the same data, so that it is an upper bound where the networks err on the same ones.
        """
        data, dense, final = known(report.data), known(report.accuracy.dense), _final_accuracy(report)
        if data is None or dense is None or not data.test_images or isinstance(final, Unknown):
            return None
        variance = sum(share * (1 - share) for share in (dense, final)) / data.test_images
        return 100 * _NORMAL_95 * math.sqrt(variance)

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether there are no data to measure accuracy on."""
        hint = "Name them under [data] in prunec.toml, or let the gate pass by --allow-unknown."
        return None if asked.has_data else Foreseen("accuracy is measured on labelled data, and there are none.", hint)


@dataclass(frozen=True)
class MinSpeedup:
    """The compiled network is at least so many times as fast as the dense one, measured on the target."""

    limit: float
    name: ClassVar[str] = "min_speedup"
    exit_code: ClassVar[int] = LatencyGateError.exit_code
    label: ClassVar[str] = "measured speed-up"
    unit: ClassVar[str] = "x"

    def __post_init__(self) -> None:
        _check_limit(self, 0 < self.limit < math.inf, "a factor above 0")

    def value(self, report: Report) -> float | Unknown:
        """Dense over compiled latency."""
        return report.latency if isinstance(report.latency, Unknown) else report.latency.speedup

    def margin(self, report: Report) -> float | None:
        """Half the width of the speed-up's bootstrap interval."""
        latency = known(report.latency)
        return None if latency is None else (latency.speedup_interval[1] - latency.speedup_interval[0]) / 2

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether no latency can be measured."""
        return untimed(asked)


@dataclass(frozen=True)
class MaxLatencyMs:
    """One inference of the compiled network takes at most so many milliseconds, measured on the target."""

    limit: float
    name: ClassVar[str] = "max_latency_ms"
    exit_code: ClassVar[int] = LatencyGateError.exit_code
    label: ClassVar[str] = "measured latency"
    unit: ClassVar[str] = " ms"

    def __post_init__(self) -> None:
        _check_limit(self, 0 < self.limit < math.inf, "milliseconds above 0")

    def value(self, report: Report) -> float | Unknown:
        """The median."""
        return report.latency if isinstance(report.latency, Unknown) else report.latency.compiled_ms.median

    def margin(self, report: Report) -> float | None:
        """The median's part of the relative error of the speed-up, which has the dense network's error in it, too."""
        latency = known(report.latency)
        if latency is None:
            return None
        low, high = latency.speedup_interval
        return latency.compiled_ms.median * (high - low) / 2 / latency.speedup

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether no latency can be measured."""
        return untimed(asked)


@dataclass(frozen=True)
class MaxSizeMb:
    """The engine's file, or the model that the engine is built from where that is the engine, has at most this size."""

    limit: float
    name: ClassVar[str] = "max_size_mb"
    exit_code: ClassVar[int] = SparsityGateError.exit_code
    label: ClassVar[str] = "size of the engine"
    unit: ClassVar[str] = " MB"

    def __post_init__(self) -> None:
        _check_limit(self, 0 < self.limit < math.inf, "megabytes above 0")

    def value(self, report: Report) -> float | Unknown:
        """Megabytes of 1e6 bytes."""
        size_bytes = report.size_bytes.engine
        return size_bytes if isinstance(size_bytes, Unknown) else size_bytes / 1e6

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether no engine is built."""
        hint = "Compile with an engine, or let the gate pass by --allow-unknown: `prunec build` judges anew."
        return Foreseen(asked.no_engine, hint) if asked.no_engine else None


@dataclass(frozen=True)
class RequireSparsePercent:
    """At least this many percent of the layers with a weight, those that can't be 2:4 included, hold 2:4."""

    limit: float
    name: ClassVar[str] = "require_sparse_percent"
    exit_code: ClassVar[int] = SparsityGateError.exit_code
    label: ClassVar[str] = "layers that hold 2:4"
    unit: ClassVar[str] = " %"

    def __post_init__(self) -> None:
        _check_limit(self, 0 <= self.limit <= 100, "0% .. 100%")

    def value(self, report: Report) -> float | Unknown:
        """Percent, 0 .. 100, in the exported model."""
        if not report.compiled_layers:
            return Unknown("the network has no layer with a weight.")
        sparsities = [known(layer.sparsity) for layer in report.compiled_layers]
        return 100 * sum(sparsity is not None and sparsity.valid for sparsity in sparsities) / len(sparsities)

    def foreseen(self, asked: Asked) -> Foreseen | None:
        """Whether nothing makes a layer 2:4: neither sparsify, nor a step or training hook of another package."""
        if not self.limit or any(_may_sparsify(step) for step in asked.pipeline.steps):
            return None
        return Foreseen(
            "no step of the pipeline makes a layer 2:4.",
            "Add sparsify, which leaves alone what is 2:4 already; or say by --allow-unknown that the network is.",
        )


def _may_sparsify(step: Step) -> bool:
    if isinstance(step.options, Sparsify):
        return step.options.pattern == TWO_FOUR
    return step.name not in OWN_STEPS or bool(getattr(step.options, "hooks", ""))


def _final_accuracy(report: Report) -> float | Unknown:
    """The accuracy of the most finished form that was evaluated."""
    engine = report.accuracy.engine
    return report.accuracy.exported if isinstance(engine, Unknown) else engine


def _check_limit(gate: Gate, fits: bool, expected: str) -> None:
    """Refuse a limit that nothing can pass or fail."""
    if not fits:
        flag = "--" + gate.name.removesuffix("_percent").replace("_", "-")
        raise UsageError(f"The limit of the gate {gate.name} ({flag}) is {gate.limit}; expected {expected}.")
