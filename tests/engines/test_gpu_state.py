"""Clocks and power of the GPU, with a fake of NVIDIA's management library: it has read no GPU here."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from prunec.passes.errors import MissingDependencyError
from prunec.runtime.gpu_state import gpu_state


class NVMLError(Exception):
    pass


def fake_nvml(event_reasons: bool) -> ModuleType:
    nvml = ModuleType("pynvml")
    word = "Event" if event_reasons else "Throttle"

    def no_power(handle: str) -> int:
        raise NVMLError("not supported")

    nvml.__dict__.update(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetName=lambda handle: b"NVIDIA A100" if handle == "GPU-12ab" else b"another",
        nvmlSystemGetDriverVersion=lambda: "550.54.15",
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1200, 2: 1593}[kind],
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: 1410,
        nvmlDeviceGetPowerUsage=lambda handle: 251_300,
        nvmlDeviceGetEnforcedPowerLimit=no_power,
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        nvmlDeviceGetPerformanceState=lambda handle: 0,
    )
    for name, bit in (("None", 0), ("GpuIdle", 1), ("SwPowerCap", 4), ("HwSlowdown", 8), ("All", 13)):
        setattr(nvml, f"nvmlClocks{word}Reason{name}", bit)
    setattr(nvml, f"nvmlDeviceGetCurrentClocks{word}Reasons", lambda handle: 12)
    return nvml


@pytest.mark.parametrize("event_reasons", [True, False])
def test_state_as_drivers_of_both_generations_tell_it(monkeypatch: pytest.MonkeyPatch, event_reasons: bool) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(event_reasons))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(uuid="12ab"))
    state = gpu_state()
    assert (state.name, state.driver) == ("NVIDIA A100", "550.54.15")
    assert (state.sm_clock_mhz, state.max_sm_clock_mhz, state.memory_clock_mhz) == (1200, 1410, 1593)
    assert (state.power_w, state.power_limit_w) == (251.3, None)
    assert (state.temperature_c, state.performance_state) == (61, 0)
    assert state.clocks_held_by == ("SwPowerCap", "HwSlowdown")


def test_without_the_library_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingDependencyError, match="pip install nvidia-ml-py"):
        gpu_state()


def test_without_a_driver_its_own_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = fake_nvml(True)

    def missing() -> None:
        raise NVMLError("NVML Shared Library Not Found")

    monkeypatch.setattr(nvml, "nvmlInit", missing, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with pytest.raises(MissingDependencyError, match="Shared Library Not Found"):
        gpu_state()
