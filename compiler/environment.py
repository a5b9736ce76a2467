"""The machine that a report was made on."""

import os
import platform
from dataclasses import asdict
from pathlib import Path

from prunec.compiler import report
from prunec.compiler.doctor import find_gpus
from prunec.compiler.report import Environment
from prunec.compiler.versions import installed_versions
from prunec.runtime.gpu_state import GpuState


def environment(state: GpuState | None = None) -> Environment:
    """Versions, processor and GPU of this machine; of the GPU also its state, where something was measured on it."""
    return Environment(
        versions=installed_versions(),
        processor=_processor(),
        threads=os.cpu_count() or 1,
        gpu=", ".join(find_gpus()) or None,
        gpu_state=None if state is None else report.GpuState(**asdict(state)),
    )


def _processor() -> str:
    """The processor's name as the system tells it: Linux knows the model, elsewhere the architecture must do."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
