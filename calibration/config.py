"""The section ``[data]`` of a project file. Imports neither torch nor numpy, so that the CLI starts fast."""

import math
from dataclasses import dataclass

from prunec.passes.errors import UsageError, did_you_mean

#: Sources with a prefix of their own; any other text is "module:callable".
SOURCES = ("npz", "idx", "imagefolder")

#: Augmentation -> whether it takes a number of pixels.
AUGMENTATIONS = {"flip": False, "shift": True}


@dataclass(frozen=True)
class DataConfig:
    """The sources of labelled images and their preprocessing.

    Attributes:
        train: "npz:PATH", "idx:FOLDER", "imagefolder:FOLDER" or "module:callable", relative to the project file. The
            last part of it, ``validation_fraction``, is held out for validation.
        test: Source of the test data in the same form; nothing is ever chosen on it.
        mean: Mean per channel, or one for all; of images scaled to 0..1 where they are stored as uint8.
        std: Standard deviation per channel, or one for all.
        augment: "flip" (left to right, every second image) and "shift:PIXELS" (up to so many pixels along each axis,
            filled with zeros), applied to training images only.
        validation_fraction: Share of the training data that is held out, in (0, 1).
        limit_train: Number of first training samples that are used, validation included; None for all.
        limit_test: Number of first test samples that are used; None for all.
        resize: Pixels of the shorter side of images in folders, 256 by default.
        crop: Pixels of the square cut out of their middle, 224 by default.
        name: Name of the data, such as "ImageNet", by which runs are compared with published ones.

    Raises:
        UsageError: A value is unknown or out of its range.
    """

    train: str
    test: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    augment: tuple[str, ...] = ()
    validation_fraction: float = 0.1
    limit_train: int | None = None
    limit_test: int | None = None
    resize: int | None = None
    crop: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for option, source in (("train", self.train), ("test", self.test)):
            _check_source(option, source)
        for text in self.augment:
            parse_augmentation(text)
        if len(self.mean) != len(self.std) or not self.mean:
            raise UsageError(
                f"[data] mean has {len(self.mean)} values and std has {len(self.std)}: give one of each per "
                "channel, or one for all channels."
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 < s < math.inf for s in self.std):
            raise UsageError(f"[data] mean must be finite and std above 0, got {self.mean} and {self.std}.")
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"[data] validation_fraction must lie between 0 and 1, got {self.validation_fraction}.")
        for option in ("limit_train", "limit_test", "resize", "crop"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise UsageError(f"[data] {option} must be at least 1, got {value}.")
        if not self.has_folders and (self.resize is not None or self.crop is not None):
            raise UsageError("[data] resize and crop are for image folders, and none is named.")

    @property
    def has_folders(self) -> bool:
        """Whether some part comes from an image folder."""
        return any(source.startswith("imagefolder:") for source in (self.train, self.test))


def parse_augmentation(text: str) -> tuple[str, int]:
    """Name and number of pixels (0 where it takes none) of one entry of ``augment``.

    Raises:
        UsageError: The augmentation is unknown, or its number is missing, needless or impossible.
    """
    name, colon, number = text.partition(":")
    if name not in AUGMENTATIONS:
        raise UsageError(
            f"[data] augment holds an unknown augmentation {text!r}.", hint=did_you_mean(name, AUGMENTATIONS)
        )
    if not AUGMENTATIONS[name]:
        if colon:
            raise UsageError(f"[data] the augmentation {name!r} takes no number, got {text!r}.")
        return name, 0
    if not number.isdecimal() or int(number) < 1:
        raise UsageError(
            f"[data] the augmentation {text!r} needs a number of pixels of at least 1.", hint="For example 'shift:2'."
        )
    return name, int(number)


def _check_source(option: str, source: str) -> None:
    kind, colon, rest = source.partition(":")
    is_reference = all(part.isidentifier() for part in kind.split(".")) and rest.isidentifier()
    if colon and rest and (kind in SOURCES or is_reference):
        return
    if kind in SOURCES:
        hint = f"Put a path behind '{kind}:'."
    else:
        hint = did_you_mean(kind, SOURCES) if colon else "Put the kind before the path, as in 'npz:data.npz'."
    raise UsageError(
        f"[data] {option} = {source!r} is no known source: expected 'npz:PATH', 'idx:FOLDER', "
        "'imagefolder:FOLDER' or 'module:callable'.",
        hint=hint,
    )
