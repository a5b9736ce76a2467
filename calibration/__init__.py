"""Data for training and measuring: sources, preprocessing, augmentation, splits."""

from prunec.passes.lazy import lazy_attributes

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Data": "prunec.calibration.data",
        "DataConfig": "prunec.calibration.config",
        "Split": "prunec.calibration.data",
        "load_data": "prunec.calibration.data",
    },
)
