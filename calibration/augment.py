"""Random changes to a batch of training images.

Drawing and applying are apart: every process of a training draws for the whole batch and changes its own share of it,
so that the samples don't depend on how many processes there are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from prunec.calibration.augment_options import (
    AugmentationOptions,
    Flip,
    OwnTransform,
    RandomCrop,
    RandomResizedCrop,
    VerticalFlip,
)
from prunec.calibration.user_code import import_callable
from prunec.calibration.vision import torchvision
from prunec.passes.errors import InputError, UsageError
from prunec.passes.user_calls import call_user_code, defined_at


class Augmentation(Protocol):
    """A random change to images that are not yet normalised."""

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Random values for each of ``count`` images, (count, ...)."""

    def apply(self, images: Any, drawn: Tensor) -> Tensor:
        """Images (N, C, H, W) of any dtype, changed by what was drawn for each; of the same shape and dtype.

        `PerImage` takes a list of images (C, height, width) of various sizes as well.
        """


def augmentation(options: AugmentationOptions, shape: tuple[int, ...], folder: Path) -> Augmentation:
    """The augmentation that an entry of ``[data] augment`` asks for.

    Args:
        options: The entry.
        shape: Shape (C, H, W) of what comes out.
        folder: Folder that the modules of own functions are relative to.

    Raises:
        MissingDependencyError: It is torchvision's, which isn't installed.
        UsageError: The user's function can't be found.
    """
    match options:
        case Flip() | VerticalFlip():
            return Mirror(3 if isinstance(options, Flip) else 2)
        case RandomCrop():
            return PaddedCrop(options.padding)
        case RandomResizedCrop():
            v2 = torchvision("The augmentation resized-crop is").transforms.v2
            crop = v2.RandomResizedCrop(shape[-2:], scale=options.scale, ratio=options.ratio, antialias=True)
            return PerImage("resized-crop", crop, shape)
        case OwnTransform():
            return PerImage(options.reference, import_callable(options.reference, folder), shape)


@dataclass(frozen=True)
class Mirror:
    """Each image mirrored along an axis, 2 for rows and 3 for columns, with probability one half."""

    axis: int

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator) < 0.5

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        return torch.where(drawn, images.flip(self.axis), images)


@dataclass(frozen=True)
class PaddedCrop:
    """Each image moved by up to ``padding`` pixels along each axis; what comes in is zero (black, not normalised)."""

    padding: int

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.randint(0, 2 * self.padding + 1, (2, count, 1), generator=generator).transpose(0, 1)

    def apply(self, images: Tensor, drawn: Tensor) -> Tensor:
        count, _, height, width = images.shape
        rows = (drawn[:, 0] + torch.arange(height))[:, :, None]
        columns = (drawn[:, 1] + torch.arange(width))[:, None, :]
        padded = pad(images, (self.padding,) * 4)
        # Indices on both sides of the channel axis move it to the end.
        return padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class PerImage:
    """A transform of single images whose random numbers are torch's, each image with a seed of its own.

    Attributes:
        name: The transform, as error messages name it.
        transform: Function of an image (C, height, width).
        shape: Shape of what it must return.
    """

    name: str
    transform: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.randint(0, 2**63 - 1, (count,), generator=generator)

    def apply(self, images: Iterable[Tensor], drawn: Tensor) -> Tensor:
        """Raise `InputError` where the transform fails, or gives something else than an image of the same kind."""
        before = torch.get_rng_state()
        try:
            return torch.stack([self._one(image, seed) for image, seed in zip(images, drawn.tolist(), strict=True)])
        finally:
            torch.set_rng_state(before)

    def _one(self, image: Tensor, seed: int) -> Tensor:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch the random numbers of GPUs too
        hint = "It is called with one image as it is stored, a tensor (channels, height, width)."
        # Some write in place, into what may be the data themselves.
        changed = call_user_code(f"augmentation {self.name}", self.transform, image.clone(), hint=hint)
        if not isinstance(changed, Tensor) or changed.shape != self.shape or changed.dtype != image.dtype:
            got = f"{list(changed.shape)} of {changed.dtype}" if isinstance(changed, Tensor) else type(changed).__name__
            where = defined_at(self.transform)
            raise InputError(
                f"The augmentation {self.name}{where} gave {got}; expected {list(self.shape)} of {image.dtype}."
            )
        return changed


def check_repeatable(augment: Augmentation, image: Tensor) -> None:
    """Check that what was drawn decides all: a training that goes on must see the same images.

    Raises:
        InputError: `PerImage` can't apply it.
        UsageError: The augmentation draws random numbers of its own.
    """
    drawn = augment.draw(1, Generator().manual_seed(0))
    first, second = (augment.apply(image[None], drawn) for _ in range(2))
    if not torch.equal(first, second):
        raise UsageError(
            f"[data] the augmentation {getattr(augment, 'name', augment)} gives another image each time with one seed.",
            hint="Draw its random numbers from torch, as torch.rand(1) does, and keep nothing between images.",
        )
