"""The limit of a process's memory (``ulimit -v``), which many libraries don't name where it ends them."""

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")
#: Share of the limit from which on a failure is taken to be its.
_NEARLY_ALL = 0.9


def exhausted_limit_mb() -> int | None:
    """The limit in MB where this process has come near to it; None where there is none, or the system doesn't tell."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or not _STATUS.exists():
        return None
    peak = next((line for line in _STATUS.read_text().splitlines() if line.startswith("VmPeak:")), None)
    used = 0 if peak is None else int(peak.split()[1]) << 10
    return limit >> 20 if used > _NEARLY_ALL * limit else None
