"""The blocks and tiles of channels that engines compute in, by device, precision and pattern. Imports no torch.

A width that isn't a multiple of its engine's block is padded to one, so that it costs as much. The default recipe
rounds widths to these multiples (`Target.channel_multiple`), and predictions pad to them.
"""

from prunec.runtime.devices import Device

#: Filters that one matrix instruction of Tensor Cores computes: the n of mma.m16n8k* (PTX ISA, warp-level matrix
#: instructions).
_FILTERS = 8
#: Inputs that one such instruction sums over at least, by precision: the k of mma.m16n8k4.tf32, m16n8k8.f16 and .bf16,
#: m16n8k16.s8 and .e4m3. They are 16 bytes. The sparse form, mma.sp, sums over twice as many, of which it leaves out
#: half. Weights in int4 are in blocks of 32 inputs at least: those of a layer with other inputs stay in 16 bits.
_INPUTS = {"fp32": 4, "fp16": 8, "bf16": 8, "int8": 16, "fp8": 16, "int4": 32}
#: Rows and filters of the tiles that one multiprocessor computes at a time, the usual ones of NVIDIA's libraries
#: (Matrix Multiplication Background User's Guide, DU-09799-001, section 2.3), and smaller ones for short products.
TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (64, 32), (32, 64), (32, 32))


def channel_multiple(device: Device, precision: str, *, sparse: bool) -> int:
    """The multiple of channels that the kernels of a device are made for; ``sparse`` asks for those of 2:4.

    It is the larger of what the device says of itself, as ONNX Runtime's block of 16 channels on x86-64, and of what
    the instructions of Tensor Cores read, where it has them.
    """
    if device.compute_capability is None:
        return device.channel_multiple
    return max(device.channel_multiple, _FILTERS, _INPUTS[precision] * (2 if sparse else 1))
