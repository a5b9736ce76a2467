"""Image folders as torchvision's ImageFolder lays them out: FOLDER/train/CLASS/*.jpg, FOLDER/test/CLASS/*.jpg."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset, default_collate

from prunec.calibration.samples import DatasetSamples, Part
from prunec.passes.errors import InputError, MissingDependencyError, first_line

#: Part -> folders that may hold it, of which the first that exists counts.
_FOLDERS = {"train": ("train",), "test": ("test", "val")}


@dataclass(frozen=True)
class Crop:
    """Pixels of an image's shorter side after resizing, and of the square that is then cut out of its middle."""

    resize: int = 256
    size: int = 224


def open_image_folder(folder: Path, part: Part, crop: Crop) -> DatasetSamples:
    """Images of one part, RGB uint8 (3, size, size), read when they are needed.

    Labels are positions of the class folders in the order of their names. The samples stand in a fixed random order,
    since validation takes the last of them.

    Raises:
        InputError: A folder is missing or holds no images, or the classes of the parts differ.
        MissingDependencyError: Torchvision isn't installed, or doesn't fit this build of torch.
    """
    path = _part_folder(folder, part)
    dataset = _dataset(_torchvision(), path, crop)
    other = _part_folder(folder, "test" if part == "train" else "train")
    classes, others = set(dataset.classes), {child.name for child in other.iterdir() if child.is_dir()}
    if classes != others:
        odd = sorted(classes ^ others)
        raise InputError(
            f"{path} and {other} hold different classes: {', '.join(odd[:5])} in one of them only.",
            hint="Labels are positions of the class folders, which must be the same in both.",
        )
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    return DatasetSamples(Subset(dataset, order.tolist()), default_collate, str(path))


def _torchvision() -> Any:
    try:
        import torchvision.transforms.v2  # type: ignore[import-untyped]  # brings its data sets along
    except (ImportError, RuntimeError) as error:  # built for another torch, it fails when it registers its operators
        raise MissingDependencyError(
            f"Image folders are read by torchvision, which can't be loaded: {first_line(error)}",
            hint="pip install 'prunec[vision]', with the build of torchvision that belongs to this torch.",
        ) from error
    return torchvision


def _part_folder(folder: Path, part: Part) -> Path:
    for name in _FOLDERS[part]:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(
        f"{folder} has no folder {' or '.join(_FOLDERS[part])}.", hint="Paths are relative to the project file."
    )


def _dataset(vision: Any, path: Path, crop: Crop) -> Any:
    v2 = vision.transforms.v2
    steps = v2.Compose([v2.Resize(crop.resize), v2.CenterCrop(crop.size), v2.PILToTensor()])
    try:
        return vision.datasets.ImageFolder(str(path), transform=steps)
    except OSError as error:
        raise InputError(
            f"{path} is no image folder: {first_line(error)}", hint="Expected one folder of images per class."
        ) from error
