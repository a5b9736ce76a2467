"""``prunec targets``."""

from typing import TYPE_CHECKING

from prunec.compiler.cli import options
from prunec.compiler.cli.output import echo, note, print_json, print_table

if TYPE_CHECKING:
    from prunec.runtime.devices import Device


def targets(as_json: options.AsJson = False) -> None:
    """List devices, with the patterns and precisions that each can have."""
    from prunec.runtime.target import known_devices

    known = known_devices()
    devices = known.devices.values()
    for problem in known.problems:
        note(problem)
    if as_json:
        print_json([_as_json(device) for device in devices])
        return
    columns = ("device", "name", "patterns", "precisions", "capability", "dense fp16", "memory")
    print_table("devices", columns, [_row(device) for device in devices])
    echo("A target is DEVICE[-PATTERN][-PRECISION], for example a100-2:4, l4-2:4-fp16, h100-dense-fp16 or cpu.")
    echo("Defaults: dense; fp16 on NVIDIA, fp32 on the CPU. int8 and fp8 are calibrated on training data;")
    echo("int4 is for the weights of linear layers alone.")


def _patterns(device: "Device") -> list[str]:
    return ["dense", "2:4"] if device.sparse_tensor_cores else ["dense"]


def _capability(device: "Device") -> str | None:
    return ".".join(map(str, device.compute_capability)) if device.compute_capability else None


def _row(device: "Device") -> tuple[str, ...]:
    fp16, memory = device.peak_dense_tops.get("fp16"), device.memory_gb_per_s
    return (
        device.name,
        device.title,
        " ".join(_patterns(device)),
        " ".join(device.precisions),
        _capability(device) or "",
        f"{fp16:g} TFLOP/s" if fp16 else "",
        f"{memory:g} GB/s" if memory else "",
    )


def _as_json(device: "Device") -> dict[str, object]:
    return {
        "device": device.name,
        "title": device.title,
        "patterns": _patterns(device),
        "precisions": list(device.precisions),
        "compute_capability": _capability(device),
        "peak_dense_tops": dict(device.peak_dense_tops),
        "memory_gb_per_s": device.memory_gb_per_s,
        "source": device.source,
    }
