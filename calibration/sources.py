"""Sources of samples: NumPy archives, IDX files, image folders, or the user's own code."""

import gzip
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.calibration.arrays import npz_names, read_npz_array
from prunec.calibration.image_folder import Crop, open_image_folder
from prunec.calibration.loaders import CallDataFunction, open_parts
from prunec.calibration.samples import ArraySamples, PartName, Samples
from prunec.calibration.source_files import check_there
from prunec.passes.archives import check_growth
from prunec.passes.boundary import reading, shortened
from prunec.passes.errors import InputError


def open_source(
    source: str, part: PartName, folder: Path, call: CallDataFunction, seed: int, crop: Crop
) -> tuple[Samples, Samples | None]:
    """Samples of the training or the test part of a source, and beside training data its own validation data.

    Args:
        source: "npz:PATH", "idx:FOLDER", "imagefolder:FOLDER" or "module:callable".
        part: The part that is wanted of a source that holds both.
        folder: Folder that paths and modules are relative to.
        call: Calls data functions of the user.
        seed: Seed of random numbers while their samples are read.
        crop: Size of images from folders.

    Raises:
        InputError: A file or array is missing or unreadable, or the user's function gives something else than
            the parts of the data.
        MissingDependencyError: The images lie in folders, and there is no torchvision.
        UsageError: The module or its function doesn't exist.
    """
    check_there(source, folder)
    kind, _, rest = source.partition(":")
    if kind == "npz":
        return _from_npz(folder / rest, part), None
    if kind == "idx":
        return _from_idx(folder / rest, part), None
    if kind == "imagefolder":
        return open_image_folder(folder / rest, part, crop), None
    return open_parts(call(source), part, source, seed)


def _in_memory(images: NDArray[Any], labels: NDArray[Any], where: str) -> ArraySamples:
    if images.ndim < 2:
        raise _misshapen("images", images, labels, where)
    _check_arrays({"images": images}, labels, where)
    return ArraySamples(_tensor(images[:, None] if images.ndim == 3 else images), _tensor(labels))


def _check_arrays(inputs: Mapping[str, NDArray[Any]], labels: NDArray[Any], where: str) -> None:
    for name, array in inputs.items():
        if not array.ndim or labels.ndim not in (1, 3) or len(array) != len(labels):
            raise _misshapen(name, array, labels, where)
    for name, array in {**inputs, "labels": labels}.items():
        if array.dtype.kind not in "uifb" or array.itemsize > 8:
            raise InputError(f"{where}: {name} are of type {array.dtype}: expected numbers of at most 64 bits.")


def _misshapen(name: str, array: NDArray[Any], labels: NDArray[Any], where: str) -> InputError:
    return InputError(
        f"{where}: {name} have shape {array.shape} and labels {labels.shape}: expected (N, ...) and "
        "(N,), or maps (N, H, W), with the same N."
    )


def _tensor(array: NDArray[Any]) -> Tensor:
    # torch can't index unsigned integers of more than one byte, and knows this machine's byte order alone.
    kind = np.dtype(np.int64) if array.dtype.kind == "u" and array.itemsize > 1 else array.dtype.newbyteorder("=")
    return torch.from_numpy(array.astype(kind, copy=False))


def _from_npz(path: Path, part: PartName) -> ArraySamples:
    """The images of an archive, or where it has none its other arrays of the part, inputs by the network's names."""
    where, prefix = f"{path} ({part})", f"{part}_"
    images, labels = f"{prefix}images", f"{prefix}labels"
    with reading(str(path), "a NumPy .npz archive", hint="Write it with numpy.savez_compressed."):
        held = npz_names(path)
        inputs = [name for name in held if name.startswith(prefix) and name != labels]
        if images in held or not inputs:
            stored, whole = _read_npz(path, (images, labels))
            return _in_memory(stored, whole, where)
        *arrays, whole = _read_npz(path, (*inputs, labels))
    named = dict(zip((name.removeprefix(prefix) for name in inputs), arrays, strict=True))
    _check_arrays(named, whole, where)
    return ArraySamples({name: _tensor(array) for name, array in named.items()}, _tensor(whole))


def _read_npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays of an archive, or nearly any error."""
    held = npz_names(path)
    if missing := [name for name in names if name not in held]:
        raise InputError(
            f"{path} has no array {missing[0]!r}; it holds {shortened(', '.join(held)) or 'nothing'}.",
            hint="Expected train_images, train_labels, test_images and test_labels, or in place of the images an array "
            "for each of the network's inputs, as train_input_ids.",
        )
    return [read_npz_array(path, name) for name in names]


def _from_idx(folder: Path, part: PartName) -> ArraySamples:
    prefix = "train" if part == "train" else "t10k"
    images, labels = (_read_idx(folder, f"{prefix}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    return _in_memory(images, labels, f"{folder} ({part})")


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """Array of unsigned bytes in an IDX file, plain or gzipped."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise InputError(
            f"{folder} has no IDX file {name} or {name}.gz.", hint="Paths are relative to the project file."
        )
    with reading(str(path), "an IDX file"), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        start = file.read(4)
        if start[:3] != b"\0\0\x08":
            raise ValueError("the first three bytes aren't 00 00 08 (unsigned bytes)")
        shape = [int(size) for size in np.frombuffer(file.read(4 * start[3]), ">u4", count=start[3])]
        count = math.prod(shape)
        check_growth(path, count)
        values = np.empty(count, np.uint8)
        got = file.readinto(values.data)  # no more than it says, whatever a gzip file unpacks to
        if got != count or file.read(1):
            raise ValueError(f"it has {'fewer' if got < count else 'more'} than the {count} values that it says")
        return values.reshape(shape)
