import subprocess
import sys

import pytest

from prunec.calibration.augment_options import (
    Flip,
    OwnTransform,
    RandomCrop,
    RandomResizedCrop,
    VerticalFlip,
    parse_augmentation,
)
from prunec.calibration.config import DataConfig
from prunec.passes.errors import UsageError


@pytest.mark.parametrize("source", ["npz:data.npz", "idx:/data/sets", "loaders:cifar", "my.package:cifar"])
def test_sources_are_accepted(source: str) -> None:
    assert DataConfig(train=source, test=source).train == source


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nzp:data.npz", "Did you mean 'npz'"),
        ("data.npz", "'npz:data.npz'"),
        ("npz:", "no known source"),
        ("loaders:not a name", "no known source"),
        ("", "no known source"),
    ],
)
def test_unknown_sources_are_refused(source: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        DataConfig(train=source, test="npz:data.npz")


def test_augmentations_are_parsed() -> None:
    assert parse_augmentation("flip") == Flip()
    assert parse_augmentation("vertical-flip") == VerticalFlip()
    assert parse_augmentation("shift:2") == parse_augmentation("crop{padding=2}") == RandomCrop(2)
    assert parse_augmentation("resized-crop") == RandomResizedCrop((0.08, 1.0), (0.75, 4 / 3))
    assert parse_augmentation("resized-crop{scale=[0.5,1]}").scale == (0.5, 1.0)  # type: ignore[union-attr]
    assert parse_augmentation("my.package:transform") == OwnTransform("my.package:transform")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flp", "Did you mean 'flip'"),
        ("flip:2", "unknown augmentation 'flip:2'"),
        ("flip{p=0.3}", "flip has no option 'p'"),
        ("crop", "crop needs a value for padding"),
        ("crop{padding=0}", "at least 1 pixel, got 0"),
        ("crop{padding=a}", "expected a whole number"),
        ("resized-crop{scale=[0.5,0.2]}", "scale of resized-crop must be two increasing"),
        ("resized-crop{scale=[0.5,1.2]}", "at most 1, got 0.5 and 1.2"),
        ("resized-crop{ratio=[0,1]}", "ratio of resized-crop must be"),
        ("resized-crop{scale=0.5}", "scale is '0.5'"),
        ("flip crop{padding=2}", "unknown augmentation"),
        ("", "unknown augmentation"),
        ("crop{padding=2", "can't be read"),
        ("shift", "'shift:2'"),
        ("shift:0", "at least 1"),
        ("shift:-1", "at least 1"),
        ("shift:two", "number of pixels"),
    ],
)
def test_unknown_augmentations_are_refused(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        DataConfig(train="npz:a.npz", test="npz:a.npz", augment=(text,))


def test_a_resized_crop_comes_first() -> None:
    assert DataConfig("npz:a.npz", "npz:a.npz", augment=("resized-crop", "flip")).augmentations[1] == Flip()
    with pytest.raises(UsageError, match="resized-crop must come first"):
        DataConfig("npz:a.npz", "npz:a.npz", augment=("flip", "resized-crop"))


@pytest.mark.parametrize(
    "options",
    [
        {"mean": (0.1, 0.2)},
        {"mean": (), "std": ()},
        {"mean": (float("nan"),)},
        {"std": (0.0,)},
        {"validation_fraction": 0.0},
        {"validation_fraction": 1.0},
        {"limit_train": 0},
        {"limit_test": -5},
        {"split_seed": -1},
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options)).split("_", maxsplit=1)[0]):
        DataConfig(train="npz:a.npz", test="npz:a.npz", **options)  # type: ignore[arg-type]


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    code = "import sys, prunec.calibration.config as c; c.parse_augmentation('flip'); "
    code += "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
