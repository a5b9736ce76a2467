"""Augmentations as ``[data] augment`` names them. Imports neither torch nor numpy, so that the CLI starts fast."""

from dataclasses import dataclass

from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.notation import parse_items
from prunec.passes.options import with_options


@dataclass(frozen=True)
class Flip:
    """Every second image is mirrored left to right, at random."""


@dataclass(frozen=True)
class VerticalFlip:
    """Every second image is mirrored top to bottom, at random."""


@dataclass(frozen=True)
class RandomCrop:
    """A part of the image's own size, at random from the image with black around it.

    Attributes:
        padding: Pixels of black on each side.
    """

    padding: int

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise UsageError(f"[data] augment: the padding of a crop must be at least 1 pixel, got {self.padding}.")


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, brought to the size of the network's inputs by torchvision's transform of this name.

    Attributes:
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width over height.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for option, limit in (("scale", 1.0), ("ratio", float("inf"))):
            low, high = getattr(self, option)
            if not 0 < low <= high <= limit:
                raise UsageError(
                    f"[data] augment: {option} of resized-crop must be two increasing numbers above 0"
                    f"{' and at most 1' if limit == 1 else ''}, got {low:g} and {high:g}."
                )


@dataclass(frozen=True)
class OwnTransform:
    """A function of the user's own.

    Attributes:
        reference: ``module:callable``; it takes one image as it is stored, a tensor (C, H, W), and returns another of
            the same shape and type. Its random numbers are torch's.
    """

    reference: str


AugmentationOptions = Flip | VerticalFlip | RandomCrop | RandomResizedCrop | OwnTransform
AUGMENTATIONS: dict[str, type[AugmentationOptions]] = {
    "flip": Flip,
    "vertical-flip": VerticalFlip,
    "crop": RandomCrop,
    "resized-crop": RandomResizedCrop,
}


def parse_augmentation(text: str) -> AugmentationOptions:
    """The options of one entry of ``augment``: ``NAME``, ``NAME{option=value}`` or ``module:callable``.

    ``shift:2`` is another spelling of ``crop{padding=2}``.

    Raises:
        UsageError: The augmentation or an option is unknown, or a value is missing, needless or impossible.
    """
    name, colon, rest = text.partition(":")
    if name == "shift":
        if not rest.isdecimal() or int(rest) < 1:
            raise UsageError(
                f"[data] the augmentation {text!r} needs a number of pixels of at least 1.",
                hint="For example 'shift:2'.",
            )
        return RandomCrop(int(rest))
    if colon and name not in AUGMENTATIONS and is_reference(text):
        return OwnTransform(text)
    items = parse_items(text, "augmentation")
    if len(items) != 1 or items[0].name not in AUGMENTATIONS:
        known = [*AUGMENTATIONS, "shift:PIXELS", "module:callable"]
        raise UsageError(f"[data] augment holds an unknown augmentation {text!r}.", hint=did_you_mean(name, known))
    options: AugmentationOptions = with_options(
        AUGMENTATIONS[items[0].name], f"[data] augment: {items[0].name}", items[0].options
    )
    return options


def is_reference(text: str) -> bool:
    """Whether a text is of the form ``module:callable``."""
    module, colon, name = text.partition(":")
    return bool(colon) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))
