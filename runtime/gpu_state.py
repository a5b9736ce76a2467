"""Clocks, power and temperature of the GPU, from NVIDIA's management library. No GPU has run it so far."""

from dataclasses import dataclass
from typing import Any

import torch

from prunec.passes.errors import MissingDependencyError

_REASON_PREFIXES = ("nvmlClocksEventReason", "nvmlClocksThrottleReason")


@dataclass(frozen=True)
class GpuState:
    """State of a GPU at one moment.

    Attributes:
        driver: Version of the driver.
        sm_clock_mhz: Clock of the multiprocessors.
        power_w: Power that the GPU draws; None where it doesn't tell.
        power_limit_w: Power limit that is enforced; None where the GPU doesn't tell.
        performance_state: State from 0, the fastest, to 15.
        clocks_held_by: Reasons that keep the clocks below their maximum, as NVML names them.
    """

    name: str
    driver: str
    sm_clock_mhz: int
    max_sm_clock_mhz: int
    memory_clock_mhz: int
    power_w: float | None
    power_limit_w: float | None
    temperature_c: int
    performance_state: int
    clocks_held_by: tuple[str, ...]


def gpu_state() -> GpuState:
    """State of the GPU that torch uses.

    Raises:
        MissingDependencyError: The package nvidia-ml-py isn't installed, or the driver's library can't be loaded.
    """
    try:
        import pynvml
    except ImportError as error:
        raise MissingDependencyError(
            "GPU clocks need nvidia-ml-py, which isn't installed.", hint="pip install nvidia-ml-py"
        ) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MissingDependencyError(f"GPU clocks can't be read: {error}.", hint="Check the NVIDIA driver.") from error
    try:
        # NVML counts all GPUs of the machine, torch the visible ones, but their UUIDs agree.
        uuid = torch.cuda.get_device_properties().uuid
        return _read(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any, handle: Any) -> GpuState:
    return GpuState(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        sm_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        max_sm_clock_mhz=nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        power_w=_watts(nvml, nvml.nvmlDeviceGetPowerUsage, handle),
        power_limit_w=_watts(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        performance_state=nvml.nvmlDeviceGetPerformanceState(handle),
        clocks_held_by=_reasons(nvml, handle),
    )


def _watts(nvml: Any, read: Any, handle: Any) -> float | None:
    """A power in watts, which NVML tells in milliwatts; None on Jetson boards and some laptops, which don't tell it."""
    try:
        return float(read(handle)) / 1000
    except nvml.NVMLError:
        return None


def _reasons(nvml: Any, handle: Any) -> tuple[str, ...]:
    """Names of the bits that are set; newer drivers call them event reasons, older ones throttle reasons."""
    read = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    bits = int((read or nvml.nvmlDeviceGetCurrentClocksThrottleReasons)(handle))
    names = {
        int(getattr(nvml, name)): name.removeprefix(prefix)
        for prefix in reversed(_REASON_PREFIXES)
        for name in dir(nvml)
        if name.startswith(prefix) and isinstance(getattr(nvml, name), int)
    }
    return tuple(name for bit, name in sorted(names.items()) if bit and bits & bit == bit and name != "All")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
