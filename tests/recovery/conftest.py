from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.passes.frontend import capture
from prunec.passes.program import Program
from tests.recovery.networks import network


@pytest.fixture
def data(tmp_path: Path) -> Data:
    """Noisy 8x8 images of which the brightest quarter is the label."""
    random = np.random.default_rng(0)

    def split(count: int) -> tuple[Any, Any]:
        labels = random.integers(0, 4, count)
        images = random.integers(0, 160, (count, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 50
        return images.astype(np.uint8), labels

    (train_images, train_labels), (test_images, test_labels) = split(600), split(200)
    np.savez(
        tmp_path / "quarters.npz",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    config = DataConfig("npz:quarters.npz", "npz:quarters.npz", (0.3,), (0.2,), augment=("shift:1",))
    return load_data(config, tmp_path, 0)


@pytest.fixture
def program() -> Program:
    return capture(network(), (torch.zeros(2, 1, 8, 8),))
