"""Data for training and measuring: sources, preprocessing, augmentation, splits; what is measured of layers on data."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.calibration.config import DataConfig as DataConfig
    from prunec.calibration.data import Data as Data
    from prunec.calibration.data import Split as Split
    from prunec.calibration.data import load_data as load_data
    from prunec.calibration.evidence import collect_evidence as collect_evidence

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Data": "prunec.calibration.data",
        "DataConfig": "prunec.calibration.config",
        "Split": "prunec.calibration.data",
        "collect_evidence": "prunec.calibration.evidence",
        "load_data": "prunec.calibration.data",
    },
)
