"""Layers that stay in higher precision within a share of the multiply-accumulates."""

from collections.abc import Sequence

from prunec.calibration.quantization.sensitivity import LayerSensitivity, worst_first
from prunec.passes.quantization.placement import Placement


def most_sensitive(sensitivities: Sequence[LayerSensitivity], placement: Placement, share: float) -> tuple[str, ...]:
    """The layers by the error that each alone brings for its multiply-accumulates, as many as a budget holds.

    A layer that doesn't fit is left out, and later ones that do are taken.

    Args:
        sensitivities: The sensitivities of the layers on grids.
        placement: The placement that they were measured in; what stays in higher precision there counts.
        share: Share of all multiply-accumulates that may be computed in higher precision.
    """
    macs: dict[str, int] = {}
    for row in placement.layers:
        macs[row.layer] = macs.get(row.layer, 0) + row.macs
    budget = share * sum(macs.values()) - sum(row.macs for row in placement.layers if not row.is_quantized)
    kept = []
    for layer in worst_first([each for each in sensitivities if each.error > 0]):
        if macs[layer] <= budget:
            budget -= macs[layer]
            kept.append(layer)
    return tuple(kept)
