import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.passes.errors import InputError, UsageError

Arrays = dict[str, np.ndarray[Any, Any]]


def arrays(train: int = 40, test: int = 12, shape: tuple[int, ...] = (6, 6)) -> Arrays:
    random = np.random.default_rng(0)
    return {
        "train_images": random.integers(0, 256, (train, *shape), np.uint8),
        "train_labels": np.arange(train) % 4,
        "test_images": random.integers(0, 256, (test, *shape), np.uint8),
        "test_labels": np.arange(test) % 4,
    }


def load(folder: Path, stored: Arrays, **options: Any) -> Data:
    np.savez_compressed(folder / "data.npz", **stored)  # type: ignore[arg-type]
    return load_data(DataConfig("npz:data.npz", "npz:data.npz", **options), folder, 0)


def joined(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def test_images_are_scaled_normalised_and_in_order(tmp_path: Path) -> None:
    stored = arrays()
    data = load(tmp_path, stored, mean=(0.25,), std=(0.5,))
    inputs, labels = joined(data.test.batches(5))
    expected = (stored["test_images"][:, None].astype(np.float32) / 255 - 0.25) / 0.5
    assert inputs.dtype == torch.float32
    assert labels.dtype == torch.int64
    np.testing.assert_allclose(inputs.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert labels.tolist() == stored["test_labels"].tolist()
    assert [len(batch) for _, batch in data.test.batches(5)] == [5, 5, 2]
    assert (data.classes, data.input_shape) == (4, (1, 6, 6))


def test_channels_have_their_own_mean_and_deviation(tmp_path: Path) -> None:
    stored = arrays(shape=(3, 4, 5))
    data = load(tmp_path, stored, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    inputs, _ = next(iter(data.test.batches(12)))
    expected = stored["test_images"][:, 2].astype(np.float32) / 255 / 4 - 0.3 / 4
    np.testing.assert_allclose(inputs[:, 2].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_float_images_are_not_divided(tmp_path: Path) -> None:
    stored = arrays()
    stored |= {name: stored[name].astype(np.float64) for name in ("train_images", "test_images")}
    inputs, _ = next(iter(load(tmp_path, stored).test.batches(12)))
    np.testing.assert_array_equal(inputs[:, 0].numpy(), stored["test_images"].astype(np.float32))


def test_validation_is_a_tenth_of_every_class_and_never_augmented(tmp_path: Path) -> None:
    stored = arrays()
    data = load(tmp_path, stored, augment=("flip", "shift:2"))
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 12)
    held_out, labels = joined(data.validation.batches(3))
    assert sorted(labels.tolist()) == [0, 1, 2, 3]
    shuffled, _ = next(data.validation.batches(4, epoch=0))
    assert sorted(shuffled.sum((1, 2, 3)).tolist()) == sorted(held_out.sum((1, 2, 3)).tolist())
    in_order, _ = joined(data.train.batches(7))
    images = (torch.from_numpy(stored["train_images"]).float()[:, None] / 255).flatten(1).tolist()
    fitted = [images.index(image) for image in in_order.flatten(1).tolist()]
    assert fitted == sorted(fitted)
    assert sorted([*fitted, *(images.index(image) for image in held_out.flatten(1).tolist())]) == list(range(40))


def test_epochs_are_shuffled_augmented_and_repeatable(tmp_path: Path) -> None:
    stored = arrays(train=200)
    data = load(tmp_path, stored, augment=("flip", "shift:1"))
    first = joined(data.train.batches(16, epoch=0, seed=7))
    torch.rand(3)  # the global random numbers play no part
    assert torch.equal(first[0], joined(data.train.batches(16, epoch=0, seed=7))[0])
    for epoch, seed in ((1, 7), (0, 8)):
        assert not torch.equal(first[0], joined(data.train.batches(16, epoch=epoch, seed=seed))[0])
    assert len(first[0]) == 176  # 180 to train on, the last 4 make no full batch
    plain = load(tmp_path, stored)
    shuffled, labels = joined(plain.train.batches(180, epoch=3))
    order = [joined(plain.train.batches(50))[0].flatten(1).tolist().index(row) for row in shuffled.flatten(1).tolist()]
    assert sorted(order) == list(range(180))
    assert order != list(range(180))
    assert labels.tolist() == joined(plain.train.batches(50))[1][order].tolist()


def test_the_only_batch_is_kept_where_it_is_not_full(tmp_path: Path) -> None:
    data = load(tmp_path, arrays())
    assert [len(labels) for _, labels in data.train.batches(128, epoch=0)] == [36]


def test_limits_take_every_class_in_its_share(tmp_path: Path) -> None:
    stored = {name: np.sort(values) if "labels" in name else values for name, values in arrays().items()}
    data = load(tmp_path, stored, limit_train=20, limit_test=7)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 7)
    assert torch.bincount(joined(data.test.batches(7))[1]).tolist() in ([2, 2, 2, 1], [2, 2, 1, 2], [2, 1, 2, 2])
    assert sorted(torch.bincount(joined(data.train.batches(20))[1]).tolist()) == [4, 4, 5, 5]
    again, other = (load(tmp_path, stored, limit_test=7, split_seed=seed) for seed in (0, 1))
    assert torch.equal(joined(again.test.batches(7))[0], joined(data.test.batches(7))[0])
    assert not torch.equal(joined(other.test.batches(7))[0], joined(data.test.batches(7))[0])


def test_hashes_tell_data_and_preprocessing_apart(tmp_path: Path) -> None:
    stored = arrays()
    base = load(tmp_path, stored)
    assert len(base.sha256) == len(base.preprocessing_sha256) == 64
    assert load(tmp_path, stored, augment=("flip",)).preprocessing_sha256 == base.preprocessing_sha256
    normalised = load(tmp_path, stored, mean=(0.5,))
    assert normalised.sha256 == base.sha256
    assert normalised.preprocessing_sha256 != base.preprocessing_sha256
    assert load(tmp_path, stored, split_seed=1).preprocessing_sha256 != base.preprocessing_sha256
    changed = arrays()
    changed["test_labels"][3] = 0
    assert load(tmp_path, changed).sha256 != base.sha256
    assert load(tmp_path, stored, limit_train=39).sha256 != base.sha256


def with_value(name: str, index: int, value: float, dtype: str | None = None) -> Callable[[Arrays], None]:
    def change(stored: Arrays) -> None:
        stored[name] = stored[name].astype(dtype or stored[name].dtype)
        stored[name][index] = value

    return change


def replaced(**values: Any) -> Callable[[Arrays], None]:
    def change(stored: Arrays) -> None:
        stored.update(values)

    return change


BROKEN: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "missing array": (lambda stored: stored.pop("test_labels"), "no array 'test_labels'; it holds train_images"),
    "negative label": (with_value("train_labels", 5, -1), "label of sample 5 is -1"),
    "fractional label": (with_value("train_labels", 5, 1.5, "float64"), "label of sample 5 is 1.5"),
    "NaN label": (with_value("test_labels", 2, np.nan, "float64"), "label of sample 2 is nan"),
    "test label out of range": (with_value("test_labels", 2, 9), r"sample 2 is 9, outside .*\(0 to 3\)"),
    "no training data": (
        lambda s: s.update(train_images=s["train_images"][:0], train_labels=s["train_labels"][:0]),
        "holds no samples",
    ),
    "no test data": (
        lambda s: s.update(test_images=s["test_images"][:0], test_labels=s["test_labels"][:0]),
        "holds no samples",
    ),
    "one class": (lambda s: s["train_labels"].fill(3), "all 36 samples to train on have the label 3"),
    "one sample": (
        lambda s: s.update(train_images=s["train_images"][:1], train_labels=s["train_labels"][:1]),
        "holds 1 samples: .* leaves 0 to train on",
    ),
    "differing shapes": (lambda s: s.update(test_images=s["test_images"][:, :5]), r"\(1, 6, 6\).*\(1, 5, 6\)"),
    "differing types": (lambda s: s.update(test_images=s["test_images"].astype("float32")), "uint8.*float32"),
    "labels too few": (lambda s: s.update(test_labels=s["test_labels"][:-1]), r"\(12, 6, 6\).*\(11,\)"),
    "NaN image": (
        lambda s: (
            s.update(train_images=s["train_images"].astype("float32"), test_images=s["test_images"].astype("float32")),
            s["train_images"][8].__setitem__(0, np.nan),
        ),
        "sample 8 holds .* not finite",
    ),
    "complex images": (
        lambda s: s.update(train_images=s["train_images"].astype("complex64")),
        "complex64: expected numbers of at most 64 bits",
    ),
    "words": (replaced(train_labels=np.array(["cat", "dog"] * 20)), "labels are of type <U3: expected numbers"),
    "one-hot labels": (replaced(train_labels=np.eye(4)[np.arange(40) % 4]), r"labels \(40, 4\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_unusable_data_are_refused(tmp_path: Path, case: str) -> None:
    stored = arrays()
    change, expected = BROKEN[case]
    change(stored)
    with pytest.raises(InputError, match=expected) as caught:
        load(tmp_path, stored)
    assert caught.value.exit_code == 9


def test_data_sorted_by_label_give_validation_of_every_class(tmp_path: Path) -> None:
    stored = arrays(train=200)
    stored["train_labels"] = np.arange(200) // 20
    stored["test_labels"] = np.arange(12) % 10
    data = load(tmp_path, stored)
    assert torch.bincount(joined(data.validation.batches(20))[1]).tolist() == [2] * 10
    assert data.split == "shuffled, stratified by class, seed 0"


def test_a_class_of_one_sample_is_trained_on(tmp_path: Path) -> None:
    stored = arrays()
    stored["train_labels"][7] = 4
    for seed in range(5):
        assert 4 in joined(load(tmp_path, stored, split_seed=seed).train.batches(40))[1]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6), fraction=st.floats(0.05, 0.9), seed=st.integers(0, 1000)
)
def test_a_split_keeps_every_class_in_its_share_whatever_the_order_of_the_file(
    sizes: list[int], fraction: float, seed: int
) -> None:
    """Within one sample; disjoint, and together all of the data; the same images from a file in another order."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = np.arange(len(labels) * 16, dtype=np.float32).reshape(len(labels), 4, 4)
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for chosen in (np.arange(len(labels)), order):
            stored = {"train_images": images[chosen], "train_labels": labels[chosen]}
            stored |= {"test_images": images[:2], "test_labels": labels[:2]}
            try:
                data = load(Path(folder), stored, validation_fraction=fraction, split_seed=seed)
            except InputError as error:
                assert "to train on" in error.message
                return
            parts.append([joined(split.batches(200)) for split in (data.train, data.validation)])
    (fitted, fitted_labels), (held_out, held_out_labels) = parts[0]
    assert sorted([*fitted[:, 0, 0, 0].tolist(), *held_out[:, 0, 0, 0].tolist()]) == images[:, 0, 0].tolist()
    count = max(1, int(len(labels) * fraction))
    assert len(held_out) == count
    for number, size in enumerate(sizes):
        assert abs(int((held_out_labels == number).sum()) - size * count / len(labels)) <= 1
        assert size == 1 or fraction > 0.5 or number in fitted_labels
    for (first, _), (second, _) in zip(*parts, strict=True):
        assert sorted(first[:, 0, 0, 0].tolist()) == sorted(second[:, 0, 0, 0].tolist())


def test_labels_of_their_own_for_each_sample_are_chosen_at_random(tmp_path: Path) -> None:
    stored = arrays(train=200)
    stored["train_labels"] = np.arange(200)
    held_out = joined(load(tmp_path, stored).validation.batches(20))[1]
    assert len(held_out) == 20
    assert 60 < float(held_out.double().mean()) < 140


def test_maps_of_labels_are_shuffled(tmp_path: Path) -> None:
    stored = arrays(train=100)
    stored["train_labels"], stored["test_labels"] = (np.zeros((n, 6, 6), np.int64) for n in (100, 12))
    stored["train_labels"][:, 0] = 1
    data = load(tmp_path, stored)
    assert "not stratified" in data.split
    images = (torch.from_numpy(stored["train_images"]).float() / 255).flatten(1).tolist()
    chosen = [images.index(image) for image in joined(data.validation.batches(10))[0].flatten(1).tolist()]
    assert len(chosen) == 10
    assert chosen != list(range(90, 100))


def test_wide_unsigned_labels_are_accepted(tmp_path: Path) -> None:
    stored = arrays()
    stored["train_labels"] = stored["train_labels"].astype("uint32")
    assert load(tmp_path, stored).classes == 4


def test_labels_must_fit_the_network(tmp_path: Path) -> None:
    data = load(tmp_path, arrays())
    data.check_outputs(4)
    with pytest.raises(InputError, match="label 3, but the network has 3 outputs"):
        data.check_outputs(3)


def test_mean_and_augmentation_must_fit_the_inputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"3 values, but .* 1 channels"):
        load(tmp_path, arrays(), mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="augment needs images"):
        load(tmp_path, arrays(shape=(3,)), augment=("flip",))
