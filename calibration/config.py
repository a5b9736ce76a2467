"""The section ``[data]`` of a project file. Imports neither torch nor numpy, so that the CLI starts fast."""

import math
from dataclasses import dataclass

from prunec.calibration.augment_options import AugmentationOptions, RandomResizedCrop, is_reference, parse_augmentation
from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.seeds import check_seed

#: Sources with a prefix of their own; any other text is "module:callable".
SOURCES = ("npz", "idx", "imagefolder")
#: Pixels of a side that images are resized or cut to.
MAX_PIXELS = 16384


@dataclass(frozen=True)
class DataConfig:
    """The sources of labelled images and their preprocessing.

    Attributes:
        train: "npz:PATH", "idx:FOLDER", "imagefolder:FOLDER" or "module:callable", relative to the project file. A part
            of it, ``validation_fraction``, is held out for validation, unless it brings validation data of its own.
        test: Source of the test data in the same form; nothing is ever chosen on it.
        mean: Mean per channel, or one for all; of images scaled to 0..1 where they are stored as uint8.
        std: Standard deviation per channel, or one for all.
        augment: Random changes of training images, in their order: ``flip``, ``vertical-flip``, ``crop{padding=4}``,
            ``resized-crop{scale=[0.08,1],ratio=[0.75,1.33]}`` or ``module:callable`` (`augment_options`).
        validation_fraction: Share of the training data that is held out, in (0, 1), chosen at random with every class
            in its share.
        limit_train: Number of training samples that are used, validation included, chosen likewise; None for all.
        limit_test: Number of test samples that are used, chosen likewise; None for all.
        split_seed: Seed of these choices. It is the data's own, so that runs with other seeds see the same data.
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
    split_seed: int = 0
    resize: int | None = None
    crop: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for option, source in (("train", self.train), ("test", self.test)):
            _check_source(option, source)
        if any(isinstance(options, RandomResizedCrop) for options in self.augmentations[1:]):
            raise UsageError("[data] augment: resized-crop must come first, since it cuts from the whole image.")
        if len(self.mean) != len(self.std) or not self.mean:
            raise UsageError(
                f"[data] mean has {len(self.mean)} values and std has {len(self.std)}: give one of each per "
                "channel, or one for all channels."
            )
        if not all(map(math.isfinite, self.mean)) or not all(0 < s < math.inf for s in self.std):
            raise UsageError(f"[data] mean must be finite and std above 0, got {self.mean} and {self.std}.")
        if not 0 < self.validation_fraction < 1:
            raise UsageError(f"[data] validation_fraction must lie between 0 and 1, got {self.validation_fraction}.")
        for option, most in (("limit_train", None), ("limit_test", None), ("resize", MAX_PIXELS), ("crop", MAX_PIXELS)):
            value = getattr(self, option)
            if value is not None and not 1 <= value <= (most or value):
                limit = f" and at most {most}" if most else ""
                raise UsageError(f"[data] {option} must be at least 1{limit}, got {value}.")
        if not self.has_folders and (self.resize is not None or self.crop is not None):
            raise UsageError("[data] resize and crop are for image folders, and none is named.")
        check_seed("[data] split_seed", self.split_seed)

    @property
    def augmentations(self) -> list[AugmentationOptions]:
        """The options of each augmentation, in their order."""
        return [parse_augmentation(text) for text in self.augment]

    @property
    def has_folders(self) -> bool:
        """Whether some part comes from an image folder."""
        return any(source.startswith("imagefolder:") for source in (self.train, self.test))


def _check_source(option: str, source: str) -> None:
    kind, colon, rest = source.partition(":")
    if colon and rest and (kind in SOURCES or is_reference(source)):
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
