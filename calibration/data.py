"""Labelled data, split, checked and preprocessed: what training and measuring run on."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from prunec.calibration.augment import augmentation
from prunec.calibration.checks import Scan, check_classes, check_same_shape, scan
from prunec.calibration.config import DataConfig
from prunec.calibration.image_folder import Crop
from prunec.calibration.sources import open_source
from prunec.calibration.splits import Preprocessing, SampleSplit, Split
from prunec.passes.errors import InputError, UsageError

__all__ = ["Data", "Split", "load_data"]


@dataclass(frozen=True)
class Data:
    """Training, validation and test data of one source.

    Attributes:
        sha256: Hash of the stored samples and labels of all parts, limits applied.
        preprocessing_sha256: Hash of scaling, mean, standard deviation and the validation fraction.
        classes: Number of classes, the largest training label plus one.
        input_shape: Shape of one sample, without the batch.
        label_shape: Shape of one sample's label: (H, W) of a map of labels, () of a single one.
        name: Name of the data in the project file; empty where it has none.
        augment: Augmentation of the training data, as the project file names it.
    """

    train: Split
    validation: Split
    test: Split
    sha256: str
    preprocessing_sha256: str
    classes: int
    input_shape: tuple[int, ...]
    augment: tuple[str, ...] = ()
    label_shape: tuple[int, ...] = ()
    name: str = ""

    def check_outputs(self, outputs: int) -> None:
        """Check that a network with this many outputs has one for every label.

        Raises:
            InputError: Some label is too large.
        """
        if self.classes > outputs:
            raise InputError(
                f"The training data hold the label {self.classes - 1}, but the network has {outputs} outputs "
                f"(labels 0 to {outputs - 1}).",
                hint="Labels count from 0. Check that the data belong to this network.",
            )


def load_data(config: DataConfig, folder: Path, seed: int) -> Data:
    """Open, check and split the data.

    Args:
        config: Sources and preprocessing.
        folder: Folder of the project file, which paths and modules are relative to.
        seed: Seed of torch's random numbers while a data function of the user runs. Nothing else depends on it: the
            validation data are always the last of the training data.

    Raises:
        InputError: Data are missing, unreadable, empty, inconsistent or not finite, or labels are unusable.
        UsageError: A data function doesn't exist, or ``mean`` or ``augment`` don't fit the inputs.
    """
    crop = Crop(config.resize or Crop.resize, config.crop or Crop.size)
    train = open_source(config.train, "train", folder, seed, crop)
    test = open_source(config.test, "test", folder, seed, crop)
    digest = hashlib.sha256()
    train_scan = scan(train, config.limit_train, f"{config.train} (train)", digest.update)
    test_scan = scan(test, config.limit_test, f"{config.test} (test)", digest.update)
    check_same_shape(train_scan, test_scan)
    count = len(train_scan.labels)
    boundary = count - max(1, int(count * config.validation_fraction))
    classes = check_classes(train_scan, test_scan, boundary)
    preprocessing = _preprocessing(config, train_scan)
    augmentations = tuple(augmentation(text) for text in config.augment)
    if augmentations and train_scan.labels.ndim > 1:
        raise UsageError(
            f"[data] augment moves images, and the labels of {train_scan.where} are maps that would have to move too.",
            hint="Augment in your own dataset, or leave augment out.",
        )
    return Data(
        train=SampleSplit(train, 0, boundary, preprocessing, augmentations),
        validation=SampleSplit(train, boundary, count, preprocessing),
        test=SampleSplit(test, 0, len(test_scan.labels), preprocessing),
        sha256=digest.hexdigest(),
        preprocessing_sha256=_preprocessing_sha256(config, train_scan),
        classes=classes,
        input_shape=train_scan.shape,
        augment=config.augment,
        label_shape=tuple(train_scan.labels.shape[1:]),
        name=config.name,
    )


def _preprocessing(config: DataConfig, scanned: Scan) -> Preprocessing:
    shape = scanned.shape
    if len(config.mean) not in (1, shape[0]):
        raise UsageError(
            f"[data] mean and std have {len(config.mean)} values, but the inputs of {scanned.where} have "
            f"{shape[0]} channels (shape {shape}).",
            hint="Images are stored as (N, channels, height, width), grey ones also as (N, height, width).",
        )
    if config.augment and len(shape) != 3:
        raise UsageError(f"[data] augment needs images, but the inputs of {scanned.where} have shape {shape}.")
    per_channel = (-1, *(1 for _ in shape[1:]))
    return Preprocessing(torch.tensor(config.mean).view(per_channel), torch.tensor(config.std).view(per_channel))


def _preprocessing_sha256(config: DataConfig, scanned: Scan) -> str:
    description = {
        "scale": 1 / 255 if scanned.dtype == torch.uint8 else 1,
        "mean": config.mean,
        "std": config.std,
        "input_shape": scanned.shape,
        "validation_fraction": config.validation_fraction,
    }
    if config.has_folders:
        description |= {"resize": config.resize or Crop.resize, "crop": config.crop or Crop.size}
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
