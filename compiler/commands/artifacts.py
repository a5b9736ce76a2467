"""Bundles and ONNX files, which `prunec eval`, `profile` and `verify` take besides checkpoints."""

from pathlib import Path

from prunec.compiler.bundle.bundle_names import MODEL_ONNX
from prunec.compiler.bundle.bundle_reader import bundle_onnx, intact_bundle
from prunec.compiler.bundle.manifest import MANIFEST_NAME
from prunec.compiler.project.checkpoint_file import is_hub_folder
from prunec.passes.errors import InputError
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
        raise InputError(
            f"{path} doesn't exist.", hint="Give a checkpoint, a bundle's folder, hf:FOLDER or an ONNX file."
        )
    if is_hub_folder(path) and not (path / MANIFEST_NAME).exists():
        return None
    if path.is_dir():
        folder = intact_bundle(path).folder
        return bundle_onnx(folder) if as_deployed else folder / MODEL_ONNX
    if path.suffix != ".onnx":
        return None
    read_onnx(path)
    return path
