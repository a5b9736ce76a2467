"""Bundles and ONNX files, which `prunec eval`, `profile` and `verify` take besides checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunec.compiler.bundle.bundle_names import MODEL_ONNX
from prunec.compiler.bundle.bundle_reader import bundle_onnx, intact_bundle
from prunec.passes.errors import InputError
from prunec.runtime.engines.remote import RemoteSession
from prunec.runtime.onnx_reading import read_onnx


def onnx_file(path: Path, *, as_deployed: bool) -> Path | None:
    """The ONNX file that a path stands for: itself, or a bundle's; None for a checkpoint.

    Args:
        path: A file, or a bundle's folder.
        as_deployed: Whether a bundle stands for what its engine is built from, not for its float32 form: CPUs emulate
            float16.

    Raises:
        InputError: There is nothing at the path, a folder that is no intact bundle, or an ONNX file that can't be read
            or has values outside of its folder.
    """
    if not path.exists():
        raise InputError(f"{path} doesn't exist.", hint="Give a checkpoint, a bundle's folder or an ONNX file.")
    if path.is_dir():
        folder = intact_bundle(path).folder
        return bundle_onnx(folder) if as_deployed else folder / MODEL_ONNX
    if path.suffix != ".onnx":
        return None
    read_onnx(path)
    return path


def onnx_inputs(session: RemoteSession, batch: int, seed: int) -> list[NDArray[Any]]:
    """Standard normal float32 inputs of a model.

    Raises:
        InputError: Another dimension than the first, the batch, is dynamic, or the batch is fixed to another size.
    """
    generator = np.random.default_rng(seed)
    result: list[NDArray[Any]] = []
    for name, shape in zip(*session.sizes(), strict=True):
        fixed = tuple(size for size in shape[1:] if isinstance(size, int))
        if len(fixed) != len(shape[1:]):
            raise InputError(f"Input {name!r} has the shape {list(shape)}: only the batch may be dynamic.")
        if shape and isinstance(shape[0], int) and shape[0] != batch:
            raise InputError(f"Input {name!r} has its batch fixed to {shape[0]}.", hint=f"Use --batch {shape[0]}.")
        result.append(generator.standard_normal((batch, *fixed) if shape else ()).astype(np.float32))
    return result
