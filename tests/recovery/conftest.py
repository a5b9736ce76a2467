from pathlib import Path

import pytest
import torch

from prunec.calibration.data import Data
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from tests.quarters import quarters
from tests.recovery.networks import network


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Noisy 8x8 images of which the brightest quarter is the label."""
    return quarters(tmp_path, 600, 200, ("shift:1",))


@pytest.fixture
def program() -> Program:
    return capture(network(), (torch.zeros(2, 1, 8, 8),))
