"""Clocks, power and temperature of the GPU, from NVIDIA's management library. Not run on a GPU so far."""

from dataclasses import dataclass
from typing import Any

import torch

from prunec.passes.errors import MissingDependencyError

_REASON_PREFIXES = ("nvmlClocksEventReason", "nvmlClocksThrottleReason")


@dataclass(frozen=True)
class GpuState:
    """State of a GPU at one moment.

    Attributes:
        name: of the GPU.
        driver: version.
        sm_clock_mhz: of the multiprocessors, now.
        max_sm_clock_mhz: the highest they can have.
        memory_clock_mhz: now.
        power_w: drawn now; None where the GPU doesn't tell.
        power_limit_w: enforced; None likewise.
        temperature_c: of the GPU, degrees Celsius.
        performance_state: 0 is the fastest.
        clocks_held_by: what keeps the clocks below their maximum, as NVML names it.
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
        MissingDependencyError: nvidia-ml-py isn't installed, or the driver's library can't be loaded.
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
        return _read(pynvml, _handle(pynvml))
    finally:
        pynvml.nvmlShutdown()


def _handle(nvml: Any) -> Any:
    """NVML counts all GPUs of the machine, torch the visible ones: their identifiers agree."""
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")


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
    """Milliwatts as watts; Jetson boards and some laptops don't tell them."""
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
