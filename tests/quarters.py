"""Noisy images of which the brightest quarter is the label: data that a small network learns in seconds."""

from pathlib import Path
from typing import Any

import numpy as np

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data


def quarters(folder: Path, train: int, test: int, augment: tuple[str, ...] = ()) -> Data:
    """So many images of 8 x 8 to train on and to test, kept in a folder."""
    random = np.random.default_rng(0)

    def split(count: int) -> tuple[Any, Any]:
        labels = random.integers(0, 4, count)
        images = random.integers(0, 160, (count, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 50
        return images.astype(np.uint8), labels

    (train_images, train_labels), (test_images, test_labels) = split(train), split(test)
    np.savez(
        folder / "quarters.npz",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    return load_data(DataConfig("npz:quarters.npz", "npz:quarters.npz", (0.3,), (0.2,), augment=augment), folder, 0)
