import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from prunec.calibration.augment import Augmentation, Mirror, PaddedCrop, PerImage, augmentation, check_repeatable
from prunec.calibration.augment_options import parse_augmentation
from prunec.passes.errors import InputError, MissingDependencyError, UsageError
from tests.zoo import shim  # noqa: F401 - lets torchvision import


def applied(augment: Augmentation, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment.apply(images, augment.draw(len(images), Generator().manual_seed(seed)))


@pytest.mark.parametrize("axis", [2, 3])
def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_rest(axis: int) -> None:
    images = torch.arange(1000 * 2 * 3 * 4).view(1000, 2, 3, 4)
    result = applied(Mirror(axis), images)
    mirrored = (result == images.flip(axis)).flatten(1).all(1)
    same = (result == images).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 400 < int(mirrored.sum()) < 600


@given(pixels=st.integers(1, 4), seed=st.integers(0, 100))
def test_a_crop_moves_each_image_as_a_whole_and_fills_with_zeros(pixels: int, seed: int) -> None:
    images = torch.randint(1, 256, (6, 2, 5, 7), dtype=torch.uint8, generator=Generator().manual_seed(seed))
    result = applied(PaddedCrop(pixels), images, seed)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    for before, after in zip(images, result, strict=True):
        assert any(
            torch.equal(after, moved(before, down, right))
            for down in range(-pixels, pixels + 1)
            for right in range(-pixels, pixels + 1)
        )


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The image moved pixel by pixel, the plain way."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


def test_a_crop_uses_every_offset() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 1
    result = applied(PaddedCrop(2), image.repeat(500, 1, 1, 1))
    assert bool((result.sum(0) > 0).all())
    assert bool((result.flatten(1).sum(1) == 1).all())


@given(padding=st.integers(1, 4), seed=st.integers(0, 100))
def test_a_crop_is_cut_from_the_padded_image_where_the_draw_says(padding: int, seed: int) -> None:
    """The plain way: pad each image, then cut the window."""
    images = torch.randint(0, 256, (5, 3, 6, 4), dtype=torch.uint8, generator=Generator().manual_seed(seed))
    augment = PaddedCrop(padding)
    drawn = augment.draw(5, Generator().manual_seed(seed))
    for image, (top, left), got in zip(images, drawn.view(5, 2).tolist(), augment.apply(images, drawn), strict=True):
        padded = torch.zeros(3, 6 + 2 * padding, 4 + 2 * padding, dtype=torch.uint8)
        for row in range(6):
            for column in range(4):
                padded[:, row + padding, column + padding] = image[:, row, column]
        assert torch.equal(got, padded[:, top : top + 6, left : left + 4])


def named(text: str, shape: tuple[int, ...] = (3, 8, 8), folder: Path = Path()) -> Augmentation:
    return augmentation(parse_augmentation(text), shape, folder)


def test_names_give_the_augmentations() -> None:
    assert named("shift:3") == named("crop{padding=3}") == PaddedCrop(3)
    assert named("flip") == Mirror(3)
    assert named("vertical-flip") == Mirror(2)


def test_a_resized_crop_is_torchvision_s_own_with_a_seed_for_each_image() -> None:
    from torchvision.transforms import v2  # type: ignore[import-untyped]

    images = torch.randint(0, 256, (6, 3, 12, 10), dtype=torch.uint8)
    augment = named("resized-crop{scale=[0.2,0.9],ratio=[0.5,2]}", (3, 8, 8))
    drawn = augment.draw(6, Generator().manual_seed(1))
    result = augment.apply(images, drawn)
    transform = v2.RandomResizedCrop((8, 8), scale=(0.2, 0.9), ratio=(0.5, 2.0), antialias=True)
    for image, seed, got in zip(images, drawn.tolist(), result, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(transform(image), got)
    assert len({tuple(seed.flatten().tolist()) for seed in result}) == 6


TRANSFORMS = """
import random
import torch

def noisy(image):
    return (image + torch.randint(0, 3, image.shape)).to(image.dtype)
def in_place(image):
    return image.add_(1)
def smaller(image):
    return image[:, 1:]
def other_type(image):
    return image.float()
def other_numbers(image):
    return image + random.randint(0, 200)
def failing(image):
    raise ValueError("no such thing")
def nothing(image):
    return None
count = 0
def counting(image):
    global count
    count += 1
    return torch.full_like(image, count)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(TRANSFORMS)
    return tmp_path


def test_a_function_of_the_user_s_own_changes_one_image_by_its_seed(folder: Path) -> None:
    augment = named("mine:noisy", folder=folder)
    images = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
    before = torch.get_rng_state()
    drawn = augment.draw(20, Generator().manual_seed(3))
    whole = augment.apply(images, drawn)
    assert torch.equal(torch.get_rng_state(), before), "it leaves the random numbers of others alone"
    parts = torch.cat([augment.apply(images[at : at + 7], drawn[at : at + 7]) for at in range(0, 20, 7)])
    assert torch.equal(whole, parts), "an image doesn't depend on its batch"
    assert len({tuple(image.flatten().tolist()) for image in whole}) == 20
    check_repeatable(augment, images[0])


def test_a_function_may_write_in_place(folder: Path) -> None:
    augment = named("mine:in_place", folder=folder)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    check_repeatable(augment, images[0])
    assert bool((augment.apply(images, augment.draw(2, Generator())) == 1).all())
    assert not images.any(), "the data stay as they are"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smaller", r"gave \[3, 7, 8\] of torch.uint8; expected \[3, 8, 8\]"),
        ("other_type", "of torch.float32; expected"),
        ("nothing", "gave NoneType"),
        ("failing", r"failed at .*mine\.py:\d+: ValueError: no such thing"),
        ("other_numbers", "another image each time"),
        ("counting", "another image each time"),
        ("missing", "no callable 'missing'"),
    ],
)
def test_functions_that_give_no_usable_image_are_refused(folder: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError if "another" in words or "callable" in words else InputError, match=words):
        check_repeatable(named(f"mine:{name}", folder=folder), torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_without_torchvision_the_line_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"resized-crop is torchvision's.*\n.*prunec\[vision\]"):
        named("resized-crop")
    assert isinstance(named("crop{padding=4}"), PaddedCrop)
    assert not isinstance(named("flip"), PerImage)
