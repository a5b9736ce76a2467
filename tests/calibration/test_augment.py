import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from prunec.calibration.augment import Augmentation, Flip, Shift, augmentation


def applied(augment: Augmentation, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment.apply(images, augment.draw(len(images), Generator().manual_seed(seed)))


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest() -> None:
    images = torch.arange(1000 * 2 * 3 * 4).view(1000, 2, 3, 4)
    result = applied(Flip(), images)
    mirrored = (result == images.flip(3)).flatten(1).all(1)
    same = (result == images).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert 400 < int(mirrored.sum()) < 600


@given(pixels=st.integers(1, 4), seed=st.integers(0, 100))
def test_shift_moves_each_image_as_a_whole_and_fills_with_zeros(pixels: int, seed: int) -> None:
    images = torch.randint(1, 256, (6, 2, 5, 7), dtype=torch.uint8, generator=Generator().manual_seed(seed))
    result = applied(Shift(pixels), images, seed)
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


def test_shift_uses_every_offset() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 1
    result = applied(Shift(2), image.repeat(500, 1, 1, 1))
    assert bool((result.sum(0) > 0).all())
    assert bool((result.flatten(1).sum(1) == 1).all())


def test_names_give_the_augmentations() -> None:
    assert augmentation("shift:3") == Shift(3)
    assert augmentation("flip") == Flip()
