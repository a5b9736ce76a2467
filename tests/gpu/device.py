"""The target of the GPU at hand."""

import torch

from prunec.runtime.devices import DEVICES


def device_here() -> str | None:
    """Name of a device of this GPU's compute capability, the one of its name if there is; None where there is none."""
    if not torch.cuda.is_available():
        return None
    capability, name = torch.cuda.get_device_capability(), torch.cuda.get_device_name().lower()
    alike = [device for device in DEVICES.values() if device.compute_capability == capability]
    named = [device for device in alike if device.name in name.replace(" ", "")]
    return next((device.name for device in (*named, *alike)), None)
