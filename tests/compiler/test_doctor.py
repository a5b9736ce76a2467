import subprocess
from typing import Any

import pytest

from prunec.compiler import doctor
from prunec.compiler.doctor import device_status, diagnose, doctor_rows, find_gpus
from prunec.passes.errors import MissingDependencyError
from prunec.runtime.target import DEVICES, Target


def test_the_cpu_builds_and_runs_here() -> None:
    status = device_status("cpu")
    assert status.ability == "build and run"
    assert status.detail == "with onnxruntime"


def test_every_device_and_tool_has_a_row() -> None:
    diagnosis = diagnose()
    assert {device.device for device in diagnosis.devices} == set(DEVICES)
    rows = doctor_rows(diagnosis)
    assert [row[1] for row in rows if row[0] == "target"] == [device.device for device in diagnosis.devices]
    assert {row[1] for row in rows if row[0] == "tool"} >= {
        "torch",
        "onnxruntime",
        "tensorrt",
        "tensorrt_rtx",
    }
    versions = {tool.name: tool.version for tool in diagnosis.tools}
    assert versions["torch"] is not None
    assert all(len(row) == 4 for row in rows)


@pytest.mark.parametrize(
    ("builder", "ability"), [("tensorrt", "build and run"), ("tensorrt_rtx", "build ahead of time")]
)
def test_the_builder_decides_the_ability(monkeypatch: pytest.MonkeyPatch, builder: str, ability: str) -> None:
    monkeypatch.setattr(doctor, "choose_builder", lambda target: builder)
    assert device_status("a100").ability == ability


def test_without_a_builder_only_the_bundle_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(target: Target) -> str:
        raise MissingDependencyError(f"No builder for {target}.", hint="Run there: prunec build BUNDLE")

    monkeypatch.setattr(doctor, "choose_builder", refuse)
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
    [
        (0, "NVIDIA A100-SXM4-40GB\nNVIDIA L4\n", ("NVIDIA A100-SXM4-40GB", "NVIDIA L4")),
        (9, "No devices", ()),
    ],
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
