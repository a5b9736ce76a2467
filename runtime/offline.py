"""Nothing leaves the machine: what libraries need before they are imported so that they neither report nor download.

Every package of prunec that imports one of them imports this first. A variable that is set already stays: whoever wants
a library's telemetry has said so.
"""

import os
import sys

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
