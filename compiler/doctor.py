"""What is installed here, which GPU is seen, and what each target can do on this machine."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

import torch

from prunec.compiler.versions import tool_version
from prunec.passes.errors import MissingDependencyError
from prunec.runtime.engines.building import choose_builder
from prunec.runtime.target import DEVICES, Target

Ability = Literal["build and run", "build ahead of time", "bundle only"]

# tool -> what prunec uses it for, line that installs it
_PURPOSES = {
    "torch": ("capture, pruning, recovery", "pip install torch"),
    "onnx": ("exported models", "pip install onnx"),
    "onnxscript": ("ONNX export", "pip install onnxscript"),
    "onnxruntime": ("target cpu, numeric checks", "pip install onnxruntime"),
    "polygraphy": ("building and running NVIDIA engines", "pip install polygraphy"),
    "tensorrt": ("engine.plan, on a machine with the GPU", "pip install 'prunec[tensorrt]'"),
    "tensorrt_rtx": ("engine.rtx, ahead of time without the GPU", "pip install tensorrt-rtx-cu12"),
    "pynvml": ("GPU clocks and power", "pip install nvidia-ml-py"),
}
_ABILITIES: dict[str, Ability] = {
    "onnxruntime": "build and run",
    "tensorrt": "build and run",
    "tensorrt_rtx": "build ahead of time",
}
_NVIDIA_SMI_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class ToolStatus:
    """A tool: its version, or None and the line that installs it."""

    name: str
    version: str | None
    purpose: str
    install: str


@dataclass(frozen=True)
class DeviceStatus:
    """What can be done here for a device; `detail` is the builder, or why there is none."""

    device: str
    title: str
    ability: Ability
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """The whole picture; `gpus` are names, empty where none is seen."""

    python: str
    gpus: tuple[str, ...]
    tools: tuple[ToolStatus, ...]
    devices: tuple[DeviceStatus, ...]


def diagnose() -> Diagnosis:
    """Look at this machine; starts nothing on the GPU and builds nothing."""
    tools = tuple(
        ToolStatus(name, tool_version(name), purpose, install) for name, (purpose, install) in _PURPOSES.items()
    )
    devices = tuple(device_status(name) for name in DEVICES)
    return Diagnosis(platform.python_version(), find_gpus(), tools, devices)


def device_status(name: str) -> DeviceStatus:
    """What this machine can do for one device of `DEVICES`."""
    target = Target.parse(name)
    try:
        builder = choose_builder(target)
    except MissingDependencyError as error:
        detail = error.message if error.hint is None else f"{error.message} {error.hint}"
        return DeviceStatus(name, target.info.title, "bundle only", detail)
    return DeviceStatus(name, target.info.title, _ABILITIES[builder], f"with {builder}")


def find_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the driver, or else torch, sees."""
    command = shutil.which("nvidia-smi")
    if command is not None:
        query = [command, "--query-gpu=name", "--format=csv,noheader"]
        try:
            found = subprocess.run(
                query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return ()
        if found.returncode == 0:
            return tuple(line.strip() for line in found.stdout.splitlines() if line.strip())
    if torch.cuda.is_available():
        return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return ()


def doctor_rows(diagnosis: Diagnosis) -> list[tuple[str, str, str, str]]:
    """The diagnosis as rows (section, name, state, detail) for a table or plain lines."""
    gpus = ", ".join(diagnosis.gpus) or "none seen"
    rows = [("machine", "python", diagnosis.python, ""), ("machine", "NVIDIA GPU", gpus, "")]
    for tool in diagnosis.tools:
        missing = f"{tool.purpose}; {tool.install}"
        rows.append(("tool", tool.name, tool.version or "not installed", tool.purpose if tool.version else missing))
    rows += [
        ("target", device.device, device.ability, f"{device.title}: {device.detail}") for device in diagnosis.devices
    ]
    return rows
