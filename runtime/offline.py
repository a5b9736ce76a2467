"""Nothing leaves the machine: what libraries need before they are imported so that they neither report nor download.

Every package of prunec that imports one of them imports this first. A variable that is set already stays: whoever wants
a library's telemetry has said so.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Variable of the environment -> its value. ONNX Runtime (1.29 and later) sends usage data from a thread of its own and
#: keeps a device's identity in the home folder; huggingface_hub, which accelerate imports, tells its version with every
#: request; Polygraphy can install what it lacks.
ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "POLYGRAPHY_AUTOINSTALL_DEPS": "0",
}


def stay_offline() -> None:
    """Set the `ENVIRONMENT`, and turn off the telemetry of an ONNX Runtime that was imported before."""
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    os.environ.update({name: ENVIRONMENT[name] for name in missing})
    if "ORT_DISABLE_TELEMETRY" in missing and (library := sys.modules.get("onnxruntime")) is not None:
        library.disable_telemetry_events()


@contextmanager
def fetching_nothing() -> Iterator[None]:
    """Let libraries of Hugging Face fetch nothing for a while, whatever a file or a configuration names."""
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before
