"""Image folders as torchvision's ImageFolder lays them out: FOLDER/train/CLASS/*.jpg, FOLDER/test/CLASS/*.jpg."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from prunec.calibration.samples import DatasetSamples, PartName
from prunec.calibration.vision import torchvision
from prunec.passes.errors import InputError, first_line

#: Part -> folders that may hold it, of which the first that exists counts.
_FOLDERS = {"train": ("train",), "test": ("test", "val")}


@dataclass(frozen=True)
class Crop:
    """Pixels of an image's shorter side after resizing, and of the square that is then cut out of its middle."""

    resize: int = 256
    size: int = 224


@dataclass(frozen=True)
class FolderSamples(DatasetSamples):
    """Images of a folder, brought to one size; ``whole`` is the dataset of the same images in their own sizes."""

    whole: Any

    def fetch_whole(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images (3, height, width) uint8 as they are stored, and labels (N,)."""
        items = self.reading(indices, lambda: [self.whole[i] for i in indices.tolist()])
        return [image for image, _ in items], torch.tensor([label for _, label in items])


def open_image_folder(folder: Path, part: PartName, crop: Crop) -> FolderSamples:
    """Images of one part, RGB uint8 (3, size, size), read when they are needed.

    Labels are positions of the class folders in the order of their names.

    Raises:
        InputError: A folder is missing or holds no images, or the classes of the parts differ.
        MissingDependencyError: Torchvision isn't installed, or doesn't fit this build of torch.
    """
    path = _part_folder(folder, part)
    vision = torchvision("Image folders are read by functions that are")
    v2 = vision.transforms.v2
    cropped = v2.Compose([v2.Resize(crop.resize), v2.CenterCrop(crop.size), v2.PILToTensor()])
    dataset, whole = (_dataset(vision, path, transform) for transform in (cropped, v2.PILToTensor()))
    other = _part_folder(folder, "test" if part == "train" else "train")
    classes, others = set(dataset.classes), {child.name for child in other.iterdir() if child.is_dir()}
    if classes != others:
        odd = sorted(classes ^ others)
        raise InputError(
            f"{path} and {other} hold different classes: {', '.join(odd[:5])} in one of them only.",
            hint="Labels are positions of the class folders, which must be the same in both.",
        )
    return FolderSamples(dataset, default_collate, str(path), whole)


def _part_folder(folder: Path, part: PartName) -> Path:
    for name in _FOLDERS[part]:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(
        f"{folder} has no folder {' or '.join(_FOLDERS[part])}.", hint="Paths are relative to the project file."
    )


def _dataset(vision: Any, path: Path, transform: Any) -> Any:
    try:
        return vision.datasets.ImageFolder(str(path), transform=transform)
    except OSError as error:
        raise InputError(
            f"{path} is no image folder: {first_line(error)}", hint="Expected one folder of images per class."
        ) from error
