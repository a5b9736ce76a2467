"""The processor that something is measured on. Imports no torch."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name as the system tells it: Linux knows the model, elsewhere the architecture must do."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
