"""Engines of other packages that fail: each failure names the engine and its package, and is no bug of prunec."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.plugins.prunec_examples.engine import ReferenceEngine, ReferenceSession
from prunec.compiler.stages.build_engine import build
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.runtime.engines import EngineInfo, EngineOptions, choose_engine
from prunec.runtime.engines.measuring import MeasureSettings, measure
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.numerics import random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.target import Target
from tests.here import native_code_here
from tests.plugins.install import installed
from tests.runtime.nets import small

CPU, OPTIONS = Target.parse("cpu"), EngineOptions(engine="faulty")


class Faulty(ReferenceEngine):
    """The reference engine; tests put faults into it."""

    name = "faulty"

    def serves(self, target: Target) -> bool:
        return True

    def open(self, engine: EngineInfo, threads: int = 1) -> ReferenceSession:
        return FaultySession(engine.path)


class FaultySession(ReferenceSession):
    """Its session."""


def boom(*_: object, **__: object) -> Any:
    raise RuntimeError("boom")


def elsewhere(self: Faulty, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
    return replace(ReferenceEngine.build(self, target, onnx_path, folder, options), path=folder / "nowhere")


def away(self: Faulty, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
    return replace(ReferenceEngine.build(self, target, onnx_path, folder, options), run_on_device=False)


def not_numbers(self: FaultySession, *inputs: Any) -> Any:
    return [array * np.float32("nan") for array in ReferenceSession.__call__(self, *inputs)]


@pytest.fixture(autouse=True)
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    native_code_here(monkeypatch)
    with installed(tmp_path / "site", ENGINES.group, faulty=f"{__name__}:Faulty"):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export_onnx(small(), path)
    return path


@pytest.mark.parametrize(
    ("kind", "method", "fault", "words"),
    [
        (Faulty, "serves", boom, "'faulty' of plugged failed: RuntimeError: boom"),
        (Faulty, "unavailable", boom, "of plugged failed"),
        (Faulty, "unavailable", lambda *_: "no", "gave 'no' for why it is unavailable"),
        (Faulty, "build", boom, "of plugged failed"),
        (Faulty, "build", lambda *_: None, "built None; expected an EngineInfo"),
        (Faulty, "build", elsewhere, "wrote no file: there is no nowhere"),
        (Faulty, "open", boom, "of plugged failed"),
        (Faulty, "open", lambda *_: None, "of plugged failed"),
        (Faulty, "tolerance", boom, "of plugged failed"),
        (FaultySession, "__call__", boom, "of plugged failed"),
        (FaultySession, "__call__", lambda *_: [3], "of plugged failed"),
    ],
)
def test_faults_of_a_build(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, kind: type, method: str, fault: Any, words: str
) -> None:
    monkeypatch.setattr(kind, method, fault)
    with pytest.raises(UsageError, match=words):
        build(CPU, OPTIONS, model, tmp_path, small())


@pytest.mark.parametrize(
    ("method", "fault", "words"),
    [
        ("timer", lambda *_: lambda: float("nan"), "timer of the engine 'faulty' gave nan"),
        ("timer", lambda *_: lambda: 0.0, "gave 0.0; expected milliseconds above 0"),
        ("timer", lambda *_: lambda: None, "gave None"),
        ("timer", lambda *_: boom, "of plugged failed"),
        ("node_times_ms", lambda *_: {"a": float("nan")}, "expected milliseconds by node"),
        ("node_times_ms", lambda *_: 3, "told 3"),
        ("node_times_ms", boom, "of plugged failed"),
    ],
)
def test_faults_of_a_measurement(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, method: str, fault: Callable[..., Any], words: str
) -> None:
    kind = choose_engine(CPU, OPTIONS)
    engine = kind.build(CPU, model, tmp_path, OPTIONS)
    monkeypatch.setattr(FaultySession, method, fault)
    run = partial(measure, kind, CPU, engine, model, random_inputs(small(), 2, 0), dense_onnx=model)
    with pytest.raises(UsageError, match=words):
        run(settings=MeasureSettings(runs=2))


def test_outputs_that_are_not_finite_are_called_so(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(FaultySession, "__call__", not_numbers)
    with pytest.raises(NumericMismatchError, match="values that are not finite, where finite ones are expected"):
        build(CPU, OPTIONS, model, tmp_path, small())


def test_an_engine_that_runs_elsewhere_only_does_not_blame_a_device(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(Faulty, "build", away)
    built = build(CPU, OPTIONS, model, tmp_path, small())
    assert "can't run engines for CPU under ONNX Runtime on this machine" in built.difference_from_torch.reason  # type: ignore[union-attr]
