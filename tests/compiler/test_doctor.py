import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunec.compiler.commands import machine_status as doctor
from prunec.compiler.commands.machine_status import device_status, diagnose, doctor_rows, plug_in_statuses
from prunec.compiler.machine.environment import find_gpus
from prunec.compiler.pipeline.step_kind import StepKind
from prunec.passes.errors import MissingDependencyError
from prunec.runtime.devices import DEVICES
from prunec.runtime.engines import EngineKind, EngineOptions, nvidia
from prunec.runtime.engines.tensorrt import TensorRT
from prunec.runtime.engines.tensorrt_rtx import TensorRTRTX
from prunec.runtime.target import Target
from tests.plugins.install import installed


def test_the_cpu_builds_and_runs_here() -> None:
    status = device_status("cpu")
    assert status.ability == "build and run"
    assert status.detail == "with onnxruntime"


def test_every_device_and_tool_has_a_row() -> None:
    diagnosis = diagnose()
    assert {device.device for device in diagnosis.devices} == set(DEVICES)
    rows = doctor_rows(diagnosis)
    assert [row[1] for row in rows if row[0] == "target"] == [device.device for device in diagnosis.devices]
    assert {row[1] for row in rows if row[0] == "tool"} >= {"torch", "onnxruntime", "tensorrt", "tensorrt_rtx"}
    versions = {tool.name: tool.version for tool in diagnosis.tools}
    assert versions["torch"] is not None
    assert all(len(row) == 4 for row in rows)


@pytest.mark.parametrize(
    ("here", "kind", "ability"), [(True, TensorRT(), "build and run"), (False, TensorRTRTX(), "build ahead of time")]
)
def test_the_engine_decides_the_ability(
    monkeypatch: pytest.MonkeyPatch, here: bool, kind: EngineKind, ability: str
) -> None:
    monkeypatch.setattr(doctor, "choose_engine", lambda target, options: kind)
    monkeypatch.setattr(nvidia, "has_device", lambda target: here)
    status = device_status("a100")
    assert status.ability == ability
    assert status.detail.startswith(f"with {kind.name}")
    assert ("support matrix" in status.detail) == isinstance(kind, TensorRTRTX)


def test_without_a_builder_only_the_bundle_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(target: Target, options: EngineOptions) -> EngineKind:
        raise MissingDependencyError(f"No builder for {target}.", hint="Run there: prunec build BUNDLE")

    monkeypatch.setattr(doctor, "choose_engine", refuse)
    status = device_status("h100")
    assert status.ability == "bundle only"
    assert "prunec build BUNDLE" in status.detail


def test_a_missing_tool_shows_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "tool_version", lambda name: None)
    rows = doctor_rows(diagnose())
    row = next(row for row in rows if row[1] == "onnxruntime")
    assert row[2] == "not installed"
    assert "pip install onnxruntime" in row[3]


@pytest.mark.parametrize(
    ("code", "output", "expected"),
    [(0, "NVIDIA A100-SXM4-40GB\nNVIDIA L4\n", ("NVIDIA A100-SXM4-40GB", "NVIDIA L4")), (9, "No devices", ())],
)
def test_gpus_are_the_driver_s(
    monkeypatch: pytest.MonkeyPatch, code: int, output: str, expected: tuple[str, ...]
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, stdout=output)

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert find_gpus() == expected


def test_a_driver_that_hangs_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("subprocess.run", run)
    assert find_gpus() == ()


UNFINISHED = StepKind("unfinished", options="math:nothing", runs="math:nothing", summary="")
UNRUNNABLE = StepKind("unrunnable", options="math:pi", runs="math:pi", summary="")


class Unnamed:
    """A class that is nothing."""


class Lost(EngineKind):
    """An engine whose first device is there already, whose second names another engine, and that can't say more."""

    name = "lost"
    title = "Lost"
    devices = (replace(DEVICES["cpu"], engines=("lost",)), replace(DEVICES["cpu"], name="xcpu", engines=("gone",)))
    build = open = None  # type: ignore[assignment]

    def runs_here(self, target: Target) -> bool:
        raise RuntimeError("boom")


class Ghost(Lost):
    """An engine whose devices are none."""

    name = "ghost"
    devices = 5  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("group", "name", "location", "words"),
    [
        ("steps", "number", "math:pi", "expected a StepKind"),
        ("steps", "unfinished", f"{__name__}:UNFINISHED", "'unfinished' of plugged failed: AttributeError"),
        ("steps", "unrunnable", f"{__name__}:UNRUNNABLE", "needs a dataclass of options"),
        ("criteria", "number", "math:pi", "no criterion"),
        ("criteria", "unnamed", f"{__name__}:Unnamed", "no criterion"),
        ("engines", "number", "math:pi", "expected a subclass"),
        ("engines", "onnxruntime", "math:pi", "brought by prunec and plugged"),
        ("training_hooks", "number", "math:pi", "no training hook"),
        ("gates", "number", "math:pi", "expected a frozen dataclass"),
        ("gates", "exit", "tests.plugins.exits:NOTHING", "SystemExit: 7"),
    ],
)
def test_plug_ins_that_are_not_of_their_kind_are_told(
    group: str, name: str, location: str, words: str, tmp_path: Path
) -> None:
    with installed(tmp_path / "site", f"prunec.{group}", **{name: location}):
        (status,) = plug_in_statuses()
        rows = doctor_rows(diagnose())
    assert words in status.problem
    assert rows[-1][2] == "can't be used"


def test_devices_that_cannot_be_used_are_listed_with_the_reason(tmp_path: Path) -> None:
    with installed(tmp_path / "site", "prunec.engines", lost=f"{__name__}:Lost", ghost=f"{__name__}:Ghost"):
        status = diagnose()
        rows = doctor_rows(status)
    assert status.devices[-1].ability == "bundle only"
    assert "There is no engine 'gone'" in status.devices[-1].detail
    assert [row[2] for row in rows].count("left out") == 2
    assert any("'ghost' of plugged failed: TypeError" in problem for problem in status.problems)
