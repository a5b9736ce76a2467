"""The table of devices: what their vendors say they can do. Imports no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from prunec.passes.errors import UsageError

FloatPrecision = Literal["fp32", "fp16", "bf16"]
#: Precisions for which values are put on grids.
GridPrecision = Literal["int8", "int4", "fp8"]
ON_GRIDS: tuple[GridPrecision, ...] = get_args(GridPrecision)
PRECISIONS = (*get_args(FloatPrecision), *ON_GRIDS)
#: What a kernel takes longer for: its operations or its bytes.
KernelBound = Literal["compute", "memory"]
_USUAL = PRECISIONS[:4]
#: The first compute capability whose Tensor Cores compute in FP8.
_FP8_FROM = (8, 9)
_NVIDIA_ENGINES = ("tensorrt", "tensorrt_rtx")
_DEVICE_NAME = re.compile(r"[a-z0-9_.]+")


@dataclass(frozen=True)
class Device:
    """A device as its vendor describes it.

    Attributes:
        name: Name in a target: small letters, digits, ``_`` and ``.``.
        title: Full name; for a series, the name of the model that the figures belong to.
        compute_capability: (major, minor) of an NVIDIA GPU; None for other devices.
        sparse_tensor_cores: Whether the device runs 2:4 faster than dense; then its sparse peak is twice the dense one.
        memory_gb_per_s: Memory bandwidth, 1e9 bytes per second; None where it depends on the machine.
        source: The document that the figures are from.
        peak_dense_tops: Precision -> dense operations, 1e12 per second; for fp32 as TensorRT computes it, in TF32 where
            there is TF32. It holds only figures that the source gives.
        precisions: Precisions that it can run.
        default_precision: Precision of a target that names none.
        zero_points: Whether its INT8 kernels are made for activations without a sign and with a zero point; the others
            take signed ones whose grid has 0 in its middle.
        precision_beside_grids: Precision of what a network on grids doesn't compute there, and of the dense
            network that it is compared with.
        channel_multiple: Multiple of channels that its kernels are made for, at least (`prunec.runtime.tiles`).
        engines: Names of the engine kinds that build for it, in order of preference.
        multiprocessors: Number of multiprocessors of a GPU; None where the source doesn't give it.
        sustained: Share of the peak rates that its power budget allows in a long computation, where that was measured.

    Raises:
        UsageError: The name has other characters, its default precision isn't one of its own, or it has no engine.
    """

    name: str
    title: str
    compute_capability: tuple[int, int] | None
    sparse_tensor_cores: bool
    memory_gb_per_s: float | None
    source: str
    peak_dense_tops: Mapping[str, float] = field(default_factory=dict)
    precisions: tuple[str, ...] = _USUAL
    default_precision: str = "fp16"
    zero_points: bool = False
    precision_beside_grids: str = "fp16"
    channel_multiple: int = 8
    engines: tuple[str, ...] = _NVIDIA_ENGINES
    multiprocessors: int | None = None
    sustained: float = 1.0

    def __post_init__(self) -> None:
        if not _DEVICE_NAME.fullmatch(self.name):
            raise UsageError(f"{self.name!r} is no name of a device: expected small letters, digits, _ and . only.")
        if self.default_precision not in self.precisions:
            raise UsageError(f"Device {self.name}: it has no {self.default_precision}, its default precision.")
        if not self.engines:
            raise UsageError(f"Device {self.name} names no engine.")

    def peak_tops(self, precision: str, sparse: bool) -> float | None:
        """Peak operations per second, 1e12; None where no source gives it."""
        dense = self.peak_dense_tops.get(precision)
        return dense if dense is None or not sparse else 2 * dense


def _gpu(
    name: str, title: str, capability: tuple[int, int], cores: int, bandwidth: float, source: str, *peaks: float
) -> Device:
    """A GPU of some multiprocessors with its dense peaks in fp32, fp16 and int8.

    From Ampere on it has bf16, as fast as fp16, 2:4 and weights in int4; from Ada on fp8, as fast as int8.
    """
    tops = dict(zip(("fp32", "fp16", "int8"), peaks, strict=True))
    is_ampere, has_fp8 = capability >= (8, 0), capability >= _FP8_FROM
    precisions = PRECISIONS if has_fp8 else PRECISIONS[:-1] if is_ampere else tuple(tops)
    tops |= {"bf16": tops["fp16"]} if is_ampere else {}
    tops |= {"fp8": tops["int8"]} if has_fp8 else {}
    return Device(name, title, capability, is_ampere, bandwidth, source, tops, precisions, multiprocessors=cores)


#: 70 W don't hold its clock (Jia et al., arXiv 1903.07486, study that). It is what is left of the rate that other GPUs
#: reach in NVIDIA's tables of BERT Large, sequences of 128, batch 128, FP16 (NVIDIA/TensorRT, demo/BERT/README.md).
_T4_SUSTAINED = 0.5
_ADA = "NVIDIA Ada GPU architecture white paper"
#: The devices that prunec knows without plug-ins. Figures are dense; NVIDIA's data sheets print those "with sparsity",
#: twice as high.
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="cpu",
            title="CPU under ONNX Runtime",
            compute_capability=None,
            sparse_tensor_cores=False,
            memory_gb_per_s=None,
            source="",
            precisions=("fp32", "int8"),
            default_precision="fp32",
            zero_points=True,
            precision_beside_grids="fp32",
            channel_multiple=16,
            engines=("onnxruntime",),
        ),
        replace(
            _gpu("t4", "NVIDIA T4", (7, 5), 40, 320, "NVIDIA T4 product brief", 8.1, 65, 130), sustained=_T4_SUSTAINED
        ),
        _gpu("a2", "NVIDIA A2", (8, 6), 10, 200, "NVIDIA A2 data sheet", 9, 18, 36),
        _gpu("a10", "NVIDIA A10", (8, 6), 72, 600, "NVIDIA A10 data sheet", 62.5, 125, 250),
        _gpu("a30", "NVIDIA A30", (8, 0), 56, 933, "NVIDIA A30 data sheet", 82, 165, 330),
        _gpu("a40", "NVIDIA A40", (8, 6), 84, 696, "NVIDIA A40 data sheet", 74.8, 149.7, 299.3),
        _gpu("a100", "NVIDIA A100 80GB SXM", (8, 0), 108, 2039, "NVIDIA A100 data sheet", 156, 312, 624),
        _gpu("l4", "NVIDIA L4", (8, 9), 58, 300, "NVIDIA L4 data sheet", 60.5, 121, 242.5),
        _gpu("l40s", "NVIDIA L40S", (8, 9), 142, 864, "NVIDIA L40S data sheet", 183, 362, 733),
        _gpu("rtx30", "GeForce RTX 3090", (8, 6), 82, 936, "NVIDIA GA102 white paper", 35.6, 142, 284),
        _gpu("rtx40", "GeForce RTX 4090", (8, 9), 128, 1008, _ADA, 82.6, 330.3, 660.6),
        _gpu("rtx50", "GeForce RTX 5090", (12, 0), 170, 1792, "NVIDIA RTX Blackwell white paper", 104.8, 419, 838),
        _gpu("h100", "NVIDIA H100 SXM", (9, 0), 132, 3350, "NVIDIA H100 data sheet", 494.5, 989.5, 1979),
        _gpu("h200", "NVIDIA H200 SXM", (9, 0), 132, 4800, "NVIDIA H200 data sheet", 494.5, 989.5, 1979),
        _gpu("b200", "NVIDIA B200", (10, 0), 148, 8000, "NVIDIA HGX B200 data sheet", 1125, 2250, 4500),
        Device("orin", "Jetson AGX Orin 64GB", (8, 7), True, 204.8, "NVIDIA Jetson AGX Orin data sheet"),
        Device(
            "thor",
            "Jetson AGX Thor T5000",
            (11, 0),
            True,
            273,
            "NVIDIA Jetson Thor data sheet",
            precisions=(*_USUAL, "fp8"),
        ),
    )
}
