"""Image folders as a data source."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunec.calibration.config import DataConfig
from prunec.calibration.data import load_data
from prunec.calibration.splits import SampleSplit, Share
from prunec.passes.errors import InputError, MissingDependencyError, UsageError
from tests.zoo import shim  # noqa: F401 - lets torchvision import

CONFIG = DataConfig("imagefolder:images", "imagefolder:images", resize=20, crop=16)
LEVELS = {"bright": 200, "dark": 40, "grey": 120}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Plain images of three classes, of various sizes, formats and modes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 6)):
        for name, level in LEVELS.items():
            path = tmp_path / "images" / part / name
            path.mkdir(parents=True)
            for number in range(count):
                size = tuple(random.integers(20, 50, 2))
                mode = "L" if number % 3 == 0 else "RGB"
                image = Image.fromarray(np.full((*size, 3), level, np.uint8)).convert(mode)
                image.save(path / f"{number}.{'png' if number % 2 else 'jpg'}")
    return tmp_path


def test_images_come_cropped_with_the_label_of_their_folder(folder: Path) -> None:
    data = load_data(CONFIG, folder, 0)
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 18)
    assert data.input_shape == (3, 16, 16)
    assert data.classes == 3
    for inputs, labels in data.test.batches(6):
        levels = torch.tensor([LEVELS[sorted(LEVELS)[label]] for label in labels.tolist()])
        assert torch.allclose(255 * inputs.mean(dim=(1, 2, 3)), levels.float(), atol=2)


def test_every_class_validates_and_the_data_are_the_same_every_time(folder: Path) -> None:
    first, second = (load_data(CONFIG, folder, seed) for seed in (0, 1))
    assert first.sha256 == second.sha256
    assert torch.bincount(next(first.validation.batches(10))[1]).tolist() == [2, 2, 2]
    assert torch.equal(next(first.validation.batches(10))[0], next(second.validation.batches(10))[0])


def test_a_limit_takes_every_class_without_reading_the_other_images(folder: Path) -> None:
    data = load_data(replace(CONFIG, limit_train=10), folder, 0)
    labels = torch.cat([labels for split in (data.train, data.validation) for _, labels in split.batches(10)])
    assert sorted(torch.bincount(labels).tolist()) == [3, 3, 4]
    assert isinstance(data.train, SampleSplit)
    assert isinstance(data.validation, SampleSplit)
    dataset = data.train.samples.dataset  # type: ignore[attr-defined]
    used = torch.cat([data.train.positions, data.validation.positions]).tolist()
    for position, (path, _) in enumerate(dataset.samples):
        if position not in used:
            Path(path).write_bytes(b"no image")
    assert load_data(replace(CONFIG, limit_train=10), folder, 0).sha256 == data.sha256


def test_a_resized_crop_is_cut_from_the_whole_image(folder: Path) -> None:
    """Of images black but for their left edge, which the middle that evaluation sees never has."""
    for path in folder.glob("images/train/*/*"):
        pixels = np.zeros((20, 60, 3), np.uint8)
        pixels[:, :10] = 255
        path.unlink()
        Image.fromarray(pixels).save(path.with_suffix(".png"))
    plain, cropped = (
        load_data(replace(CONFIG, augment=augment), folder, 0) for augment in ((), ("resized-crop", "flip"))
    )
    for split in (plain.train, cropped.train, cropped.validation):
        assert float(next(split.batches(60))[0].max()) == 0
    images = next(cropped.train.batches(54, epoch=0))[0]
    assert images.shape == (54, 3, 16, 16)
    assert float(images.max()) == 1
    assert torch.equal(images, next(cropped.train.batches(54, epoch=0))[0])
    parts = [next(cropped.train.batches(54, epoch=0, share=Share(rank, 2)))[0] for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), images)


def test_sizes_and_content_are_in_the_hashes(folder: Path) -> None:
    data = load_data(CONFIG, folder, 0)
    assert load_data(replace(CONFIG, resize=24), folder, 0).preprocessing_sha256 != data.preprocessing_sha256
    Image.fromarray(np.full((30, 30, 3), 90, np.uint8)).save(folder / "images/train/grey/1.png")
    assert load_data(CONFIG, folder, 0).sha256 != data.sha256


def test_a_file_that_is_no_image_is_an_input_error(folder: Path) -> None:
    (folder / "images/train/grey/1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot identify image file .*1\.png"):
        load_data(CONFIG, folder, 0)


def test_classes_must_be_the_same_in_both_parts(folder: Path) -> None:
    (folder / "images/val/grey").rename(folder / "images/val/gray")
    with pytest.raises(InputError, match="gray, grey in one of them only"):
        load_data(CONFIG, folder, 0)


@pytest.mark.parametrize(
    ("source", "words"),
    [("missing", "doesn.t exist"), (".", "has no folder train"), ("images/train/grey", "no folder")],
)
def test_other_folders_are_refused(folder: Path, source: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_data(replace(CONFIG, train=f"imagefolder:{source}"), folder, 0)


def test_a_class_without_images_is_refused(folder: Path) -> None:
    for part in ("train", "val"):
        (folder / "images" / part / "empty").mkdir()
    with pytest.raises(InputError, match="is no image folder"):
        load_data(CONFIG, folder, 0)


def test_without_torchvision_the_line_that_installs_it_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match=r"prunec\[vision\]"):
        load_data(CONFIG, folder, 0)


def test_sizes_are_for_image_folders_only() -> None:
    with pytest.raises(UsageError, match="resize and crop are for image folders"):
        DataConfig("npz:a.npz", "npz:a.npz", crop=16)
    with pytest.raises(UsageError, match="crop must be at least 1"):
        replace(CONFIG, crop=0)
