"""What a network is compiled for: ``<device>[-<pattern>][-<precision>]``, such as "a100-2:4". Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from prunec.passes.errors import UsageError, did_you_mean

PATTERNS = ("dense", "2:4")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Device:
    """A device as its vendor describes it.

    Attributes:
        name: as it stands in a target.
        title: full name; of a series, the model that the figures are of.
        compute_capability: (major, minor); None for a CPU.
        sparse_tensor_cores: whether it runs 2:4 faster than dense; then its sparse peak is twice the dense one.
        peak_dense_tops: precision -> dense operations, 1e12 per second, of fp32 as TensorRT computes it, in TF32 where
            there is TF32; only figures that the source gives.
        memory_gb_per_s: memory bandwidth, 1e9 bytes per second; None where it depends on the machine.
        source: where the figures are from.
        precisions: that it can run.
    """

    name: str
    title: str
    compute_capability: tuple[int, int] | None
    sparse_tensor_cores: bool
    memory_gb_per_s: float | None
    source: str
    peak_dense_tops: Mapping[str, float] = field(default_factory=dict)
    precisions: tuple[str, ...] = PRECISIONS

    def peak_tops(self, precision: str, sparse: bool) -> float | None:
        """Peak operations per second, 1e12; None where no source gives it."""
        dense = self.peak_dense_tops.get(precision)
        return dense if dense is None or not sparse else 2 * dense


def _gpu(
    name: str,
    title: str,
    capability: tuple[int, int],
    bandwidth: float,
    source: str,
    fp32: float,
    fp16: float,
    int8: float,
) -> Device:
    peaks = {"fp32": fp32, "fp16": fp16, "int8": int8} | ({"bf16": fp16} if capability >= (8, 0) else {})
    precisions = PRECISIONS if capability >= (8, 0) else ("fp32", "fp16", "int8")
    return Device(name, title, capability, capability >= (8, 0), bandwidth, source, peaks, precisions)


_ADA = "NVIDIA Ada GPU architecture white paper"
#: Figures are dense; NVIDIA's data sheets print those "with sparsity", twice as high.
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("cpu", "CPU under ONNX Runtime", None, False, None, "", precisions=("fp32", "int8")),
        _gpu("t4", "NVIDIA T4", (7, 5), 320, "NVIDIA T4 product brief", 8.1, 65, 130),
        _gpu("a2", "NVIDIA A2", (8, 6), 200, "NVIDIA A2 data sheet", 9, 18, 36),
        _gpu("a10", "NVIDIA A10", (8, 6), 600, "NVIDIA A10 data sheet", 62.5, 125, 250),
        _gpu("a30", "NVIDIA A30", (8, 0), 933, "NVIDIA A30 data sheet", 82, 165, 330),
        _gpu("a40", "NVIDIA A40", (8, 6), 696, "NVIDIA A40 data sheet", 74.8, 149.7, 299.3),
        _gpu("a100", "NVIDIA A100 80GB SXM", (8, 0), 2039, "NVIDIA A100 data sheet", 156, 312, 624),
        _gpu("l4", "NVIDIA L4", (8, 9), 300, "NVIDIA L4 data sheet", 60.5, 121, 242.5),
        _gpu("l40s", "NVIDIA L40S", (8, 9), 864, "NVIDIA L40S data sheet", 183, 362, 733),
        _gpu("rtx30", "GeForce RTX 3090", (8, 6), 936, "NVIDIA GA102 white paper", 35.6, 142, 284),
        _gpu("rtx40", "GeForce RTX 4090", (8, 9), 1008, _ADA, 82.6, 330.3, 660.6),
        _gpu("rtx50", "GeForce RTX 5090", (12, 0), 1792, "NVIDIA RTX Blackwell white paper", 104.8, 419, 838),
        _gpu("h100", "NVIDIA H100 SXM", (9, 0), 3350, "NVIDIA H100 data sheet", 494.5, 989.5, 1979),
        _gpu("h200", "NVIDIA H200 SXM", (9, 0), 4800, "NVIDIA H200 data sheet", 494.5, 989.5, 1979),
        _gpu("b200", "NVIDIA B200", (10, 0), 8000, "NVIDIA HGX B200 data sheet", 1125, 2250, 4500),
        Device("orin", "Jetson AGX Orin 64GB", (8, 7), True, 204.8, "NVIDIA Jetson AGX Orin data sheet"),
        Device("thor", "Jetson AGX Thor T5000", (11, 0), True, 273, "NVIDIA Jetson Thor data sheet"),
    )
}


@dataclass(frozen=True)
class Target:
    """A device with a sparsity pattern and a precision. ``str`` gives the full form, which `parse` reads back.

    >>> str(Target.parse("a100-2:4"))
    'a100-2:4-fp16'

    Attributes:
        device: name in `DEVICES`.
        pattern: "dense" or "2:4".
        precision: of weights and activations.
    """

    device: str
    pattern: str
    precision: str

    def __post_init__(self) -> None:
        """Refuse what isn't known, and what can't be.

        Raises:
            UsageError: unknown device, pattern or precision, or a combination that the device doesn't have.
        """
        for kind, value, known in (
            ("device", self.device, DEVICES),
            ("pattern", self.pattern, PATTERNS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise UsageError(f"Unknown {kind} {value!r} in target.", hint=did_you_mean(value, known))
        if self.precision not in self.info.precisions:
            raise UsageError(
                f"Target {self}: {self.info.title} has no {self.precision}.",
                hint=f"Known for {self.device}: {', '.join(self.info.precisions)}.",
            )
        if self.sparse and not self.info.sparse_tensor_cores:
            raise UsageError(
                f"Target {self}: {self.info.title} has no sparse tensor cores, so 2:4 can't make it faster.",
                hint=f"Compile for {self.device}-dense, or for a device with compute capability 8.0 or more.",
            )
        if self.sparse and self.precision == "fp32":
            raise UsageError(
                f"Target {self}: sparse tensor cores don't compute in fp32.",
                hint=f"Use {self.device}-2:4-fp16.",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``<device>[-<pattern>][-<precision>]``; dense, and fp16 (on a CPU fp32), by default.

        Raises:
            UsageError: as in the constructor, or a part is none of the three.
        """
        device, *parts = text.strip().lower().split("-")
        pattern, precision = "dense", "fp32" if device == "cpu" else "fp16"
        if parts and parts[0] in PATTERNS:
            pattern = parts.pop(0)
        if parts and parts[0] in PRECISIONS:
            precision = parts.pop(0)
        if parts and device in DEVICES:
            known = (*PATTERNS, *PRECISIONS)
            suggestion = "" if parts[0] in known else f"{did_you_mean(parts[0], known)} "
            raise UsageError(
                f"Target {text!r}: {parts[0]!r} is no pattern or precision in this place.",
                hint=f"{suggestion}A target is device-pattern-precision.",
            )
        return cls(device, pattern, precision)

    def __str__(self) -> str:
        """The full form; a dense fp32 CPU is just "cpu"."""
        if self.device != "cpu":
            return f"{self.device}-{self.pattern}-{self.precision}"
        parts = [self.device]
        parts += [self.pattern] if self.pattern != "dense" else []
        parts += [self.precision] if self.precision != "fp32" else []
        return "-".join(parts)

    @property
    def info(self) -> Device:
        """What is known of the device."""
        return DEVICES[self.device]

    @property
    def is_nvidia(self) -> bool:
        """Whether the device is an NVIDIA GPU."""
        return self.info.compute_capability is not None

    @property
    def sparse(self) -> bool:
        """Whether the target asks for 2:4."""
        return self.pattern == "2:4"

    @property
    def channel_multiple(self) -> int:
        """Multiple of channels that the device's kernels are made for.

        Tensor cores read 16 bytes of channels at once, twice as many where half of them are left out; ONNX Runtime
        blocks channels by 16 on CPUs.
        """
        if self.precision == "int8" or self.sparse or not self.is_nvidia:
            return 16
        return 8
