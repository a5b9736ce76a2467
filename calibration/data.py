"""Labelled data, split, checked and preprocessed: what training and measuring run on."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from prunec.calibration.augment import augmentation, check_repeatable
from prunec.calibration.augment_options import RandomResizedCrop
from prunec.calibration.checks import Scan, check_classes, check_same_shape, scan
from prunec.calibration.config import DataConfig
from prunec.calibration.image_folder import Crop
from prunec.calibration.loaders import data_functions
from prunec.calibration.samples import DatasetSamples, InputKind, Samples
from prunec.calibration.sources import open_source
from prunec.calibration.splits import Preprocessing, SampleSplit, Split
from prunec.calibration.strata import choose, shuffled, strata_of
from prunec.passes.errors import InputError, UsageError
from prunec.passes.unknown import Unknown

__all__ = ["Data", "Split", "load_data"]

_NOT_COMPARED = Unknown("the samples were not compared.")
_NOT_DIVIDED_HERE = Unknown("the data were not divided by prunec.")


@dataclass(frozen=True)
class Data:
    """Training, validation and test data of one source.

    Attributes:
        sha256: Hash of the stored samples and labels of all parts, limits applied.
        preprocessing_sha256: Hash of scaling, mean, standard deviation, the validation fraction and the split.
        classes: Number of classes, the largest training label plus one.
        inputs: What the inputs are as they are stored, one after the other.
        label_shape: Shape of one sample's label: (H, W) of a map of labels, () of a single one.
        name: Name of the data in the project file; empty where it has none.
        test_repeats_train: Share of the test samples whose input is also a training or validation sample's.
        train_repeats: Share of the training and validation samples whose input is also that of an earlier one.
        augment: Augmentation of the training data, as the project file names it.
        split: How the validation data were chosen, in words.
    """

    train: Split
    validation: Split
    test: Split
    sha256: str
    preprocessing_sha256: str
    classes: int
    inputs: tuple[InputKind, ...]
    augment: tuple[str, ...] = ()
    label_shape: tuple[int, ...] = ()
    split: str | Unknown = _NOT_DIVIDED_HERE
    name: str = ""
    test_repeats_train: float | Unknown = _NOT_COMPARED
    train_repeats: float | Unknown = _NOT_COMPARED

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample's first input, without the batch."""
        return self.inputs[0].shape

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
        seed: Seed of random numbers while a data function of the user runs. Nothing else depends on it: limits
            and split follow ``config.split_seed``.

    Raises:
        InputError: Data are missing, unreadable, empty, inconsistent or not finite, or labels are unusable.
        MissingDependencyError: An augmentation or image folders need torchvision, which isn't installed.
        UsageError: A function of the user doesn't exist, or ``mean`` or ``augment`` don't fit the inputs.
    """
    crop = Crop(config.resize or Crop.resize, config.crop or Crop.size)
    call = data_functions(folder, seed)
    train, own_validation = open_source(config.train, "train", folder, call, seed, crop)
    test, _ = open_source(config.test, "test", folder, call, seed, crop)
    digest = hashlib.sha256()

    def scanned(samples: Samples, limit: int | None, where: str) -> Scan:
        return scan(samples, _limited(samples, limit, config.split_seed), where, config.split_seed, digest.update)

    train_scan = scanned(train, config.limit_train, f"{config.train} (train)")
    others = [scanned(test, config.limit_test, f"{config.test} (test)")]
    if own_validation is not None:
        others.append(scanned(own_validation, None, f"{config.train} (validation)"))
    for other in others:
        check_same_shape(train_scan, other)
    held_out, how = _held_out(train_scan, config, own_validation is not None)
    classes = check_classes(train_scan, others, train_scan.labels[~held_out])
    preprocessing = _preprocessing(config, train_scan)
    train, test = _as_seen(train, train_scan), _as_seen(test, others[0])
    fitted = SampleSplit(train, train_scan.positions[~held_out], preprocessing)
    validation = SampleSplit(train, train_scan.positions[held_out], preprocessing)
    if own_validation is not None:
        validation = SampleSplit(_as_seen(own_validation, others[1]), others[1].positions, preprocessing)
    return Data(
        train=_augmented(fitted, config, train_scan, folder),
        validation=validation,
        test=SampleSplit(test, others[0].positions, preprocessing),
        sha256=digest.hexdigest(),
        preprocessing_sha256=_preprocessing_sha256(config, train_scan, how),
        classes=classes,
        inputs=train_scan.kinds,
        augment=config.augment,
        label_shape=tuple(train_scan.labels.shape[1:]),
        split=how,
        name=config.name,
        test_repeats_train=float(torch.isin(others[0].keys, train_scan.keys).double().mean()),
        train_repeats=1 - len(torch.unique(train_scan.keys)) / len(train_scan.keys),
    )


def _as_seen(samples: Samples, scanned: Scan) -> Samples:
    """Samples that must stay as they were when they were scanned, where code reads them each time."""
    return replace(samples, seen=scanned.seen) if isinstance(samples, DatasetSamples) else samples


def _limited(samples: Samples, limit: int | None, seed: int) -> Tensor:
    """Positions of the samples that are used, where labels are known with every class in its share."""
    count = len(samples)
    if limit is None or limit >= count:
        return torch.arange(count)
    return choose(limit, strata_of(samples.known_labels, count), shuffled(count, seed))


def _held_out(train: Scan, config: DataConfig, brings_validation: bool) -> tuple[Tensor, str]:
    """Which of the training samples validate, bool (N,), and how they were chosen, in words."""
    count = len(train.labels)
    held_out = torch.zeros(count, dtype=torch.bool)
    if brings_validation:
        return held_out, "validation data of the source's own"
    strata = strata_of(train.labels, count)
    # By content: the same images in another order are divided alike.
    held_out[choose(max(1, int(count * config.validation_fraction)), strata, train.keys.argsort(stable=True))] = True
    stratified = "stratified by class" if train.labels.ndim == 1 else "not stratified, labels are maps"
    return held_out, f"shuffled, {stratified}, seed {config.split_seed}"


def _augmented(train: SampleSplit, config: DataConfig, scanned: Scan, folder: Path) -> SampleSplit:
    options = config.augmentations
    if not options:
        return train
    if scanned.labels.ndim > 1:
        raise UsageError(
            f"[data] augment moves images, and the labels of {scanned.where} are maps that would have to move too.",
            hint="Augment in your own dataset, or leave augment out.",
        )
    shape = scanned.kinds[0].shape
    image = train.samples.fetch(train.positions[:1])[0]
    if not isinstance(image, Tensor) or len(shape) != 3:
        got = f"shape {shape}" if isinstance(image, Tensor) else f"{len(scanned.kinds)} parts"
        raise UsageError(f"[data] augment needs images, but the inputs of {scanned.where} have {got}.")
    augmentations = tuple(augmentation(one, shape, folder) for one in options)
    for augment in augmentations:
        check_repeatable(augment, image[0])
    whole = getattr(train.samples, "fetch_whole", None) if isinstance(options[0], RandomResizedCrop) else None
    return replace(train, augmentations=augmentations, whole=whole)


def _preprocessing(config: DataConfig, scanned: Scan) -> Preprocessing:
    """What [data] mean and std do, to the one input that holds no whole numbers."""
    numbers = [kind for kind in scanned.kinds if not kind.is_whole]
    is_given = (config.mean, config.std) != (DataConfig.mean, DataConfig.std)
    if not is_given and (len(scanned.kinds) > 1 or not numbers):
        return Preprocessing(torch.zeros(()), torch.ones(()))
    if len(numbers) != 1 or not numbers[0].shape:
        raise UsageError(
            f"[data] mean and std are for one input of numbers, and {scanned.where} has {len(numbers)}: "
            f"{', '.join(map(str, scanned.kinds))}.",
            hint="Leave them out, and normalise in your own dataset.",
        )
    shape = numbers[0].shape
    if len(config.mean) not in (1, shape[0]):
        raise UsageError(
            f"[data] mean and std have {len(config.mean)} values, but the inputs of {scanned.where} have "
            f"{shape[0]} channels (shape {shape}).",
            hint="Images are stored as (N, channels, height, width), grey ones also as (N, height, width).",
        )
    per_channel = (-1, *(1 for _ in shape[1:]))
    return Preprocessing(torch.tensor(config.mean).view(per_channel), torch.tensor(config.std).view(per_channel))


def _preprocessing_sha256(config: DataConfig, scanned: Scan, split: str) -> str:
    first, *others = scanned.kinds
    description: dict[str, object] = {
        "scale": 1 / 255 if first.dtype == torch.uint8 else 1,
        "mean": config.mean,
        "std": config.std,
        "input_shape": first.shape,
        "validation_fraction": config.validation_fraction,
        "split": split,
    }
    if others or first.name:
        description["inputs"] = list(map(str, scanned.kinds))
    if config.has_folders:
        description |= {"resize": config.resize or Crop.resize, "crop": config.crop or Crop.size}
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
