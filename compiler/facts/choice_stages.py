"""What a choice of layers in higher precision runs beside a calibration, as the ledger has it. Imports no torch."""

from collections.abc import Mapping

from prunec.calibration.quantization.calibrate import LossMeasure

#: Stages of the ledger: the sensitivity of layers on training data, and trials on held-back ones.
SENSITIVITY, MIXED_PRECISION = "sensitivity", "mixed-precision"
#: The part of the data that each of them looks at, in words.
SPLITS: Mapping[str, str] = {SENSITIVITY: "training data", MIXED_PRECISION: "validation data"}


def samples_run(measure: LossMeasure, *, layers: int, images: int, judged: int, samples: int) -> Mapping[str, int]:
    """Samples that ran through the network, repeated ones counted again, by stage.

    Args:
        measure: What networks were judged by.
        layers: Number of layers that were looked at alone.
        images: Number of images that each of them, and the network in floating point, ran on.
        judged: Number of networks that were judged.
        samples: Number of samples that each of them ran on.
    """
    # Points are compared with the scores of one run in floating point; outputs aren't kept, but run beside it.
    runs = judged + 1 if measure == "max_drop_points" else 2 * judged
    return {SENSITIVITY: (layers + 1) * images, MIXED_PRECISION: runs * samples}
