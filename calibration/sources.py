"""Sources of samples: NumPy archives, IDX files, image folders, or the user's own code."""

import gzip
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunec.calibration.image_folder import Crop, open_image_folder
from prunec.calibration.loaders import CallDataFunction, open_parts
from prunec.calibration.samples import ArraySamples, Part, Samples
from prunec.calibration.source_files import check_there
from prunec.passes.archives import check_growth, check_zip
from prunec.passes.boundary import reading, shortened
from prunec.passes.errors import InputError

#: Version of the format of arrays -> what reads its header.
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_source(
    source: str, part: Part, folder: Path, call: CallDataFunction, seed: int, crop: Crop
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
    if images.ndim < 2 or labels.ndim not in (1, 3) or len(images) != len(labels):
        raise InputError(
            f"{where}: images have shape {images.shape} and labels {labels.shape}: expected (N, ...) and "
            "(N,), or maps (N, H, W), with the same N."
        )
    for what, array in (("images", images), ("labels", labels)):
        if array.dtype.kind not in "uif" or array.itemsize > 8:
            raise InputError(f"{where}: {what} are of type {array.dtype}: expected numbers of at most 64 bits.")
    return ArraySamples(_tensor(images[:, None] if images.ndim == 3 else images), _tensor(labels))


def _tensor(array: NDArray[Any]) -> Tensor:
    # torch can't index unsigned integers of more than one byte, and knows this machine's byte order alone.
    kind = np.dtype(np.int64) if array.dtype.kind == "u" and array.itemsize > 1 else array.dtype.newbyteorder("=")
    return torch.from_numpy(array.astype(kind, copy=False))


def _from_npz(path: Path, part: Part) -> ArraySamples:
    names = (f"{part}_images", f"{part}_labels")
    check_zip(path)
    with reading(str(path), "a NumPy .npz archive", hint="Write it with numpy.savez_compressed."):
        images, labels = _read_npz(path, names)
    return _in_memory(images, labels, f"{path} ({part})")


def _read_npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays of an archive, or nearly any error."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive")
    with zipfile.ZipFile(path) as archive:
        held = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
        missing = [name for name in names if name not in held]
        if missing:
            raise InputError(
                f"{path} has no array {missing[0]!r}; it holds {shortened(', '.join(held)) or 'nothing'}.",
                hint="Expected train_images, train_labels, test_images and test_labels.",
            )
        return [_read_npy(archive, held[name]) for name in names]


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One array. NumPy takes memory by the word of its header, which must be that of the archive's."""
    with archive.open(member) as file:
        read_header = _HEADERS.get(np.lib.format.read_magic(file))
        if read_header is None:
            raise ValueError(f"{member.filename} is of another version of the format than numbers are stored in")
        shape, _, dtype = read_header(file)
        if (claimed := math.prod(shape) * dtype.itemsize) != member.file_size - file.tell():
            raise ValueError(f"{member.filename} says that it has {claimed} bytes of values, and has others")
    with archive.open(member) as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _from_idx(folder: Path, part: Part) -> ArraySamples:
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
