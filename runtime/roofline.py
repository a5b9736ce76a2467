"""Predicted latency of a layer: the roofline model of Williams, Waterman and Patterson (CACM 52(4), 2009).

A layer takes at least the time of its operations at the device's peak rate, and at least the time of its bytes at the
memory's bandwidth. Launch times, fusions and caches are left out: a prediction is what a layer could reach, not what it
was measured to take.
"""

import math
from dataclasses import dataclass
from typing import Literal

from prunec.passes.cost import Layer
from prunec.passes.program import Program
from prunec.runtime.target import Target

_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}


@dataclass(frozen=True)
class Prediction:
    """Predicted latency of a layer in milliseconds, and which takes longer, its operations or its bytes."""

    ms: float
    bound: Literal["compute", "memory"]


def predict_layer(layer: Layer, target: Target, batch: int, *, two_four: bool) -> Prediction | None:
    """Roofline of one layer on a device; None where the device's peak rate or bandwidth isn't known.

    With ``two_four`` sparse kernels run it, at the sparse peak rate and with compressed weights.
    """
    peak_tops, bandwidth = target.info.peak_tops(target.precision, two_four), target.info.memory_gb_per_s
    if peak_tops is None or bandwidth is None:
        return None
    bits = _BITS[target.precision]
    # 2:4 keeps half of the weights, each with 2 bits for its position.
    weight_bits = math.prod(layer.shape) * ((bits + 2) / 2 if two_four else bits)
    moved_bytes = (batch * (layer.inputs + layer.outputs) * bits + weight_bits) / 8
    compute_ms = 2 * batch * layer.macs / (peak_tops * 1e9)
    memory_ms = moved_bytes / (bandwidth * 1e6)
    return Prediction(max(compute_ms, memory_ms), "compute" if compute_ms >= memory_ms else "memory")


def predict_program(program: Program, target: Target, batch: int) -> float | None:
    """Sum of the predictions of a program's layers, in milliseconds; None where one isn't known.

    Layers with a mask run sparse kernels where the target asks for 2:4.
    """
    predictions = [
        predict_layer(layer, target, batch, two_four=target.sparse and layer.weight in program.masks)
        for layer in program.layers()
    ]
    known = [prediction.ms for prediction in predictions if prediction is not None]
    return sum(known) if len(known) == len(predictions) else None
