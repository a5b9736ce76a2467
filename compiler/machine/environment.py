"""The machine that something is measured on: its processor and its GPUs."""

import platform
import shutil
import subprocess
from pathlib import Path

import torch

_NVIDIA_SMI_TIMEOUT_SECONDS = 10


def processor() -> str:
    """The processor's name as the system tells it: Linux knows the model, elsewhere the architecture must do."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def find_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the driver, or else torch, sees."""
    command = shutil.which("nvidia-smi")
    if command is not None:
        query = [command, "--query-gpu=name", "--format=csv,noheader"]
        try:
            answer = subprocess.run(
                query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return ()
        if answer.returncode == 0:
            return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())
    if torch.cuda.is_available():
        return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return ()
