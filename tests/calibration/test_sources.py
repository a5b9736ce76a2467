import gzip
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunec.calibration.config import DataConfig
from prunec.calibration.data import Data, load_data
from prunec.passes.errors import InputError, UsageError


def load(source: str, folder: Path, seed: int = 0) -> Data:
    return load_data(DataConfig(source, source), folder, seed)


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, compressed: bool) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(1)
    stored = {
        "train-images-idx3-ubyte": random.integers(0, 256, (30, 4, 5), np.uint8),
        "train-labels-idx1-ubyte": (np.arange(30) % 3).astype(np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (9, 4, 5), np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(9) % 3).astype(np.uint8),
    }
    for name, array in stored.items():
        raw = idx_bytes(array)
        (folder / (f"{name}.gz" if compressed else name)).write_bytes(gzip.compress(raw) if compressed else raw)
    return stored


@pytest.mark.parametrize("compressed", [True, False])
def test_idx_folders_are_read(tmp_path: Path, compressed: bool) -> None:
    stored = write_idx(tmp_path, compressed)
    data = load("idx:.", tmp_path)
    inputs, labels = next(iter(data.test.batches(9)))
    assert torch.equal(inputs[:, 0], torch.from_numpy(stored["t10k-images-idx3-ubyte"]).float() / 255)
    assert labels.tolist() == stored["t10k-labels-idx1-ubyte"].tolist()
    assert len(data.train) == 27


def test_missing_and_broken_idx_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no IDX file train-images-idx3-ubyte or"):
        load("idx:.", tmp_path)
    write_idx(tmp_path, compressed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for broken in (whole[:40], b"no gzip", gzip.compress(b"wrong magic"), gzip.compress(b"\0\0\x08\x03"), b""):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="can't be read as an IDX file"):
            load("idx:.", tmp_path)


def test_an_idx_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, compressed=True)
    header = b"\0\0\x08\x03" + np.array([100_000, 32, 32], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(102_400_000)))
    with pytest.raises(InputError, match=r"would grow to 102,400,000"):
        load("idx:.", tmp_path)


def test_missing_and_broken_npz_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.npz doesn't exist"):
        load("npz:nothing.npz", tmp_path)
    np.savez_compressed(tmp_path / "whole.npz", train_images=np.zeros((50, 50)))
    whole = (tmp_path / "whole.npz").read_bytes()
    np.save(tmp_path / "single.npy", np.zeros(3))
    for broken in (b"", b"text", whole[: len(whole) // 2], (tmp_path / "single.npy").read_bytes()):
        (tmp_path / "broken.npz").write_bytes(broken)
        with pytest.raises(InputError, match=r"can't be read as a NumPy \.npz archive"):
            load("npz:broken.npz", tmp_path)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", train_images=np.array([{}], dtype=object), train_labels=np.zeros(1))
    with pytest.raises(InputError, match="can't be read"):
        load("npz:objects.npz", tmp_path)


LOADERS = """
import random
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from settings import COUNT

images = torch.arange(COUNT * 12, dtype=torch.float32).view(COUNT, 1, 3, 4) / 100
labels = torch.arange(COUNT) % 3
everything = TensorDataset(images, labels)

def datasets(): return everything, everything
def loaders(): return DataLoader(everything, batch_size=7, shuffle=True), DataLoader(everything, batch_size=7)
def lists(): return list(zip(images.split(8), labels.split(8))), [(images.numpy(), labels.numpy())]
def subsets():
    order = torch.randperm(COUNT).tolist()
    return torch.utils.data.Subset(everything, order), everything
class Stream(IterableDataset):
    def __iter__(self): return iter(everything)
def streams(): return DataLoader(Stream(), batch_size=7), DataLoader(Stream(), batch_size=7)
class Items:
    def __len__(self): return COUNT
    def __getitem__(self, i): return images[i].numpy(), i % 3
def items(): return Items(), Items()
class Noisy(Items):
    def __getitem__(self, i): return images[i] + torch.rand(1), i % 3
def noisy(): return Noisy(), everything
class Words(Items):
    def __getitem__(self, i): return "text", i % 3
def words(): return Words(), everything
class Ragged(Items):
    def __getitem__(self, i): return torch.zeros(1, 3, 4 + (i > 20)), i % 3
def ragged(): return Ragged(), everything
def raising(): raise FileNotFoundError("no such folder")
def one(): return everything
def numbers(): return 3, 4
def empty(): return [], []
class Negative(Items):
    def __len__(self): return -1
def negative(): return Negative(), everything
def brain(): return [(images.float().bfloat16(), labels)], [(images, labels)]
def valueless(): return [(images.to("meta"), labels)], [(images, labels)]
def flat(): return [(images[:, 0, 0, 0], labels)], [(images, labels)]
def uneven(): return [(images, labels[:-1])], [(images, labels)]
def graded():
    batch = (images.float().requires_grad_(), labels)
    return [batch], [batch]
def triples():
    held_out = TensorDataset(images[:6] + 100, labels[:6])
    return everything, held_out, everything
def far_validation(): return everything, TensorDataset(images, labels + 5), everything
def divided(order):
    return tuple(TensorDataset(images[part], labels[part]) for part in (order[:30], order[30:]))
def by_numpy(): return divided(np.random.permutation(COUNT))
def by_python(): return divided(random.sample(range(COUNT), COUNT))
def by_chance(): return divided(np.random.default_rng().permutation(COUNT))
class Lazy:
    # Its labels are listed.
    targets = [i // (COUNT // 4) for i in range(COUNT)]
    read = []
    def __len__(self): return COUNT
    def __getitem__(self, i):
        self.read.append(i)
        return images[i], self.targets[i]
def lazy(): return Lazy(), Lazy()
class Unlisted(Lazy):
    targets = None
    def __getitem__(self, i): return images[i], i // (COUNT // 4)
def unlisted(): return Unlisted(), Unlisted()
def pairless(): return [images], [images]
constant = 3
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "own_data.py").write_text(LOADERS)
    (tmp_path / "settings.py").write_text("COUNT = 40\n")
    return tmp_path


@pytest.mark.parametrize("function", ["datasets", "loaders", "lists", "streams", "items"])
def test_all_forms_of_user_data_give_the_same(project: Path, function: str) -> None:
    data = load(f"own_data:{function}", project)
    assert (len(data.train), len(data.validation), len(data.test)) == (36, 4, 40)
    inputs = torch.cat([x for x, _ in data.test.batches(16)])
    assert torch.equal(inputs, torch.arange(480, dtype=torch.float32).view(40, 1, 3, 4) / 100)
    assert data.sha256 == load("own_data:datasets", project).sha256


def test_random_subsets_follow_the_seed(project: Path) -> None:
    assert load("own_data:subsets", project, 1).sha256 == load("own_data:subsets", project, 1).sha256
    assert load("own_data:subsets", project, 1).sha256 != load("own_data:subsets", project, 2).sha256


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("noisy", "random transforms"),
        (
            "words",
            r"samples \d+ to \d+ of own_data:words \(train\) as .* failed \(.*own_data\.py:\d+\): (Type|Value)Error",
        ),
        ("ragged", "samples 0 to 39 .* failed"),
        ("raising", r"failed at .*own_data\.py:\d+: FileNotFoundError: no such folder"),
        ("one", "expected \\(training data, test data\\) or"),
        ("numbers", "int is neither"),
        ("empty", "gave no batches"),
        ("pairless", "batch 0 is no"),
        ("negative", r"len\(\) of own_data:negative \(train\) failed .*: ValueError"),
        ("brain", "bfloat16: expected uint8"),
        ("valueless", "batch 0 is no"),
        ("flat", r"shape \(40,\): expected \(N, ...\)"),
        ("uneven", "has 40 inputs and 39 labels"),
    ],
)
def test_unusable_user_data_are_refused(project: Path, function: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load(f"own_data:{function}", project)


def test_inputs_with_a_gradient_are_taken_without_it(project: Path) -> None:
    inputs, _ = next(load("own_data:graded", project).test.batches(16))
    assert not inputs.requires_grad


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("own_data:dataset", "Did you mean 'datasets'"),
        ("own_data:constant", "no callable 'constant'"),
        ("owndata:datasets", "no module 'owndata'"),
        ("broken:datasets", r"failed at .*broken\.py:1: ZeroDivisionError"),
        ("asks:datasets", r"failed at .*asks\.py:1: ModuleNotFoundError: No module named 'absent_library'"),
    ],
)
def test_functions_that_cannot_be_loaded_are_refused(project: Path, reference: str, expected: str) -> None:
    (project / "broken.py").write_text("1 / 0\n")
    (project / "asks.py").write_text("import absent_library\n")
    with pytest.raises(InputError if "failed" in expected else UsageError, match=expected):
        load(reference, project)


def test_modules_of_the_same_name_in_two_projects_are_kept_apart(tmp_path: Path) -> None:
    from prunec.calibration.user_code import import_callable

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(f"def name(): return {name!r}\n")
    assert import_callable("model:name", tmp_path / "first")() == "first"
    assert import_callable("model:name", tmp_path / "second")() == "second"
    assert import_callable("math:sqrt", tmp_path)(4) == 2


def test_validation_data_of_the_source_s_own_are_kept(project: Path) -> None:
    data = load("own_data:triples", project)
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 6, 40)
    assert data.split == "validation data of the source's own"
    held_out = torch.arange(72, dtype=torch.float32).view(6, 1, 3, 4) / 100 + 100
    assert torch.equal(next(data.validation.batches(6))[0], held_out)
    assert data.sha256 != load("own_data:datasets", project).sha256
    with pytest.raises(InputError, match=r"far_validation \(validation\): the label of sample 0 is 5, outside"):
        load("own_data:far_validation", project)


@pytest.mark.parametrize("function", ["by_numpy", "by_python", "by_chance"])
def test_data_that_a_function_divides_at_random_share_no_sample(project: Path, function: str) -> None:
    """The test data must be of the same division as the training data."""
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    data = load(f"own_data:{function}", project)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[union-attr]
    seen = torch.cat([x[:, 0, 0, 0] for part in (data.train, data.validation, data.test) for x, _ in part.batches(50)])
    assert len(seen.unique()) == len(seen) == 40
    if function != "by_chance":
        assert (
            data.sha256
            == load(f"own_data:{function}", project).sha256
            != load(f"own_data:{function}", project, 1).sha256
        )


def test_limited_data_are_not_read_beyond_the_limit_where_labels_are_listed(project: Path) -> None:
    config = DataConfig("own_data:lazy", "own_data:lazy", limit_train=12, limit_test=8)
    data = load_data(config, project, 0)
    labels = torch.cat([labels for split in (data.train, data.validation) for _, labels in split.batches(20)])
    assert torch.bincount(labels).tolist() == [3, 3, 3, 3]
    chosen = torch.cat([data.train.positions, data.validation.positions, data.test.positions])  # type: ignore[attr-defined]
    read = set(data.train.samples.dataset.read)  # type: ignore[attr-defined]
    assert read <= {*chosen.tolist(), 0, 1, 2, 3}, "the first four are read to see whether they repeat"


def test_limited_data_whose_labels_are_not_listed_are_chosen_at_random(project: Path) -> None:
    data = load_data(DataConfig("own_data:unlisted", "own_data:unlisted", limit_train=20), project, 0)
    labels = torch.cat([labels for split in (data.train, data.validation) for _, labels in split.batches(20)])
    assert len(labels) == 20
    assert len(set(labels.tolist())) == 4
