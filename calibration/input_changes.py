"""Mistakes in the preparation of inputs, each as the change that would undo it, and in words."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prunec.calibration.splits import Preprocessing

#: Factor within which two numbers count as the same.
_ALIKE = 1.35
#: Share of a range that inputs may reach beyond it.
_BEYOND = 0.05
_OF_255 = "mean and std of [data] are those of 0..255, and the data are scaled to 0..1"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class InputChange:
    """A change of a network's inputs (N, ...) that would undo a mistake, and the mistake in words."""

    mistake: str
    undo: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation that inputs are normalised by, one for all channels."""

    mean: float
    std: float

    def __str__(self) -> str:
        return f"mean {self.mean:.3g} and std {self.std:.3g}"

    def __call__(self, stored: Tensor) -> Tensor:
        """Normalised inputs."""
        return (stored - self.mean) / self.std


def arrangements(inputs: Tensor, given: Preprocessing) -> Iterator[InputChange]:
    """Mistakes in the order of channels, rows and columns, of images (N, C, H, W); none for other inputs."""
    if inputs.ndim != 4:
        return
    _, channels, height, width = inputs.shape
    if channels == 3:
        yield InputChange(
            "their channels are in another order: BGR instead of RGB, or the other way round, as OpenCV reads images",
            lambda x: given.normalised(given.stored(x).flip(1)),
        )
        if len(given.mean.flatten()) == channels and not torch.equal(given.mean, given.mean.flip(0)):
            reverse = Preprocessing(given.mean.flip(0), given.std.flip(0))
            yield InputChange(
                "mean and std are given for channels in another order (BGR against RGB)",
                lambda x: reverse.normalised(given.stored(x)),
            )
    if channels > 1:
        yield InputChange(
            "their channels lie last, and reshape or view was used where permute or transpose is meant",
            lambda x: x.reshape(-1, height, width, channels).permute(0, 3, 1, 2),
        )
    if height == width:
        yield InputChange("height and width are exchanged (transposed)", lambda x: x.transpose(2, 3))
    yield InputChange("they are upside down", lambda x: x.flip(2))
    yield InputChange("they are mirrored, left to right", lambda x: x.flip(3))
    yield InputChange("they are turned by 180 degrees", lambda x: x.flip(2, 3))
    if height == width:
        for side, turns in (("right", 1), ("left", -1)):
            yield InputChange(
                f"they are turned by 90 degrees to the {side}", partial(torch.rot90, k=turns, dims=(2, 3))
            )


def scalings(inputs: Tensor, given: Preprocessing) -> Iterator[InputChange]:
    """Mistakes in scale and normalisation, by usual ones and by the inputs' own mean and standard deviation.

    A scale is one of pixels, so that it is only asked about where the inputs lie in the other.
    """
    stored = given.stored(inputs)
    dims = [0, *range(2, inputs.ndim)]
    own = Preprocessing(stored.mean(dims, keepdim=True)[0], stored.std(dims, keepdim=True)[0].clamp_min(1e-6))
    in_0_1, in_0_255 = _lie_in(stored, 1), _lie_in(stored, 255) and not _lie_in(stored, 1)
    factors = [(255, "0..1", "0..255")] * in_0_1 + [(1 / 255, "0..255", "0..1")] * in_0_255
    if bool((given.mean != 0).any() or (given.std != 1).any()):
        yield InputChange("they are normalised though they should not be, or are twice", given.stored)
        for factor, theirs, others in factors:
            mistake = f"mean and std of [data] are those of {others}, and the data lie in {theirs}"
            yield InputChange(mistake, partial(_redone, given, given, factor))
    yield InputChange(
        "normalisation is missing, or was done otherwise than in training (by their own mean and std)",
        partial(_redone, given, own, 1),
    )
    plain = Preprocessing(torch.zeros(1), torch.ones(1))
    for factor, _, others in factors:
        yield InputChange(
            f"the scale is another one: the network was trained on {others}", partial(_redone, given, plain, factor)
        )
    if in_0_1:
        halves = Preprocessing(torch.full((1,), 0.5), torch.full((1,), 0.5))
        mistake = "the scale is another one: the network was trained on -1..1"
        yield InputChange(mistake, partial(_redone, given, halves, 1))
    if inputs.ndim == 4 or in_0_1 or (in_0_255 and bool((stored.round() - stored).abs().max() < 1e-3)):
        ends = float(stored.max() + stored.min())
        inverted = "dark and bright are exchanged (inverted)"
        yield InputChange(inverted, lambda x: given.normalised(ends - given.stored(x)))
    if inputs.ndim == 4 and inputs.shape[1] == 3:
        imagenet = Preprocessing(*(torch.tensor(values).view(-1, 1, 1) for values in _IMAGENET))
        mistake = "normalisation by ImageNet's mean and std is missing, or was done otherwise than in training"
        yield InputChange(mistake, partial(_redone, given, imagenet, 1))


def _lie_in(stored: Tensor, end: float) -> bool:
    """Whether inputs lie in 0..end; resized images reach a little beyond."""
    return float(stored.min()) >= -_BEYOND * end and float(stored.max()) <= (1 + _BEYOND) * end


def _redone(given: Preprocessing, other: Preprocessing, factor: float, inputs: Tensor) -> Tensor:
    """Inputs normalised otherwise, after they were multiplied."""
    return other.normalised(factor * given.stored(inputs))


def scale_mistake(expected: Normalisation, inputs: Tensor, given: Preprocessing) -> tuple[str, str]:
    """The mistake in scale or normalisation of inputs that should have been normalised otherwise, and its numbers."""
    stored = given.stored(inputs)
    low, high, spread = float(stored.min()), float(stored.max()), float(stored.std())
    is_given = Normalisation(float(given.mean.mean()), float(given.std.mean()))
    nothing_given = is_given == Normalisation(0, 1)
    nothing_expected = _alike(expected.std, 1) and abs(expected.mean) < 0.3 * max(spread, 0.3)
    looks_normalised = low < 0 or _alike(spread, 1)
    ratio = expected.std / is_given.std
    cases = (
        (expected.std < 0, "dark and bright are exchanged (inverted)"),
        (is_given.std > 10 and high < 1.01, _OF_255),
        (nothing_given and _alike(ratio, 1 / 255, 2), "the scale is another one: the network was trained on 0..255"),
        (
            nothing_given and high > 20 and _alike(ratio, 255, 2) and abs(expected.mean) < 60,
            "the scale is another one: the network was trained on 0..1",
        ),
        (nothing_given and ratio > 1.3 and expected.mean < -0.3, "they were normalised twice before they were given"),
        (nothing_given, "normalisation is missing, or was done otherwise than in training"),
        (
            nothing_expected and looks_normalised,
            "normalisation is given twice: they were normalised before [data] does it",
        ),
        (nothing_expected, "the network was trained without the normalisation of [data]"),
        (_alike(ratio, 1 / 255, 1.6) and 0 < high < 0.02, "they were divided by 255 twice"),
        (_alike(ratio, 1 / 255, 1.6), _OF_255),
        (_alike(ratio, 255, 1.6), "mean and std of [data] are those of 0..1, and the data lie in 0..255"),
        (True, "they are normalised otherwise than in training"),
    )
    told = f"they lie in {low:.3g}..{high:.3g}; [data] gives {is_given}, what the first batch norm saw fits {expected}"
    return next(mistake for applies, mistake in cases if applies), told


def _alike(value: float, other: float, factor: float = _ALIKE) -> bool:
    return other / factor < value < other * factor
