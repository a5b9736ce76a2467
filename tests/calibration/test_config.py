import subprocess
import sys

import pytest

from prunec.calibration.config import DataConfig, parse_augmentation
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
    assert parse_augmentation("flip") == ("flip", 0)
    assert parse_augmentation("shift:2") == ("shift", 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flp", "Did you mean 'flip'"),
        ("flip:2", "takes no number"),
        ("shift", "'shift:2'"),
        ("shift:0", "at least 1"),
        ("shift:-1", "at least 1"),
        ("shift:two", "number of pixels"),
    ],
)
def test_unknown_augmentations_are_refused(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        DataConfig(train="npz:a.npz", test="npz:a.npz", augment=(text,))


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
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options)).split("_", maxsplit=1)[0]):
        DataConfig(train="npz:a.npz", test="npz:a.npz", **options)  # type: ignore[arg-type]


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    code = "import sys, prunec.calibration.config; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
