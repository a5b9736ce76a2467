"""NumPy's files, read without pickles and with no more memory than they have bytes for."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from prunec.passes.archives import check_regular, check_zip
from prunec.passes.boundary import reading
from prunec.passes.errors import InputError

#: Version of the format of arrays -> what reads its header.
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(path: Path, what: str) -> NDArray[Any]:
    """The array in a ``.npy`` file; ``what`` names it as a sentence begins with it.

    Raises:
        InputError: There is no such file, it is no array of numbers, or it has other values than its header says.
    """
    check_regular(path)
    if not path.is_file():
        raise InputError(f"{what} doesn't exist.", hint="Paths are relative to the project file.")
    with reading(what, "a NumPy .npy file", hint="Write it with numpy.save."):
        with path.open("rb") as file:
            _check_header(file, path.name, path.stat().st_size)
        array: NDArray[Any] = np.load(path, allow_pickle=False)
        if array.dtype.kind not in "uifb" or array.itemsize > 8:
            raise ValueError(f"it holds {array.dtype}, expected numbers of at most 64 bits")
    return array


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in a ``.npz`` archive, or nearly any error."""
    check_zip(path)
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no zip archive")
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_npz_array(path: Path, name: str) -> NDArray[Any]:
    """One array of a ``.npz`` archive that was looked at by `npz_names`, or nearly any error."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        member = archive.getinfo(next(other for other in names if other.removesuffix(".npy") == name))
        with archive.open(member) as file:
            _check_header(file, member.filename, member.file_size)
        with archive.open(member) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_header(file: IO[bytes], name: str, size: int) -> None:
    """Refuse a header that isn't of as many values as there are: NumPy takes memory by its word."""
    read_header = _HEADERS.get(np.lib.format.read_magic(file))
    if read_header is None:
        raise ValueError(f"{name} is of another version of the format than numbers are stored in")
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, expected numbers")
    if (claimed := math.prod(shape) * dtype.itemsize) != size - file.tell():
        raise ValueError(f"{name} says that it has {claimed} bytes of values, and has others")
