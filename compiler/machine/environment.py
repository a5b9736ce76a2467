"""The GPUs of the machine that something is measured on."""

import shutil
import subprocess

import torch

_NVIDIA_SMI_TIMEOUT_SECONDS = 10


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
