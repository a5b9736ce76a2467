"""What `prunec eval`, `profile` and `verify` take besides checkpoints: bundles and ONNX files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from prunec.compiler.backend import MODEL_ONNX, MODEL_PT2, TYPED_ONNX
from prunec.compiler.bundle import Bundle, read_bundle
from prunec.compiler.loading import without_tracebacks
from prunec.compiler.manifest import MANIFEST_NAME
from prunec.passes.errors import InputError
from prunec.passes.program import Program
from prunec.runtime.engines.onnxruntime import OnnxRuntimeEngine

#: What every bundle has, besides its report.
_NEEDED = (MODEL_ONNX, MODEL_PT2, "plan.json")


def onnx_file(path: Path, *, as_deployed: bool) -> Path | None:
    """The ONNX file that a path stands for: itself, or a bundle's; None for a checkpoint.

    Args:
        path: a file, or a bundle's folder.
        as_deployed: of a bundle, what its engine is built from; otherwise the float32 form, since CPUs emulate float16.

    Raises:
        InputError: there is nothing at the path, or a folder that is no intact bundle.
    """
    if not path.exists():
        raise InputError(f"{path} doesn't exist.", hint="Give a checkpoint, a bundle's folder or an ONNX file.")
    if path.is_dir():
        folder = intact_bundle(path).folder
        return bundle_onnx(folder) if as_deployed else folder / MODEL_ONNX
    return path if path.suffix == ".onnx" else None


def intact_bundle(path: Path) -> Bundle:
    """A bundle whose files all have the hashes of its manifest.

    Raises:
        InputError: no bundle, or its files differ.
    """
    bundle = read_bundle(path)
    if problems := bundle_problems(bundle):
        raise InputError(
            f"Bundle {path} differs from its manifest: {'; '.join(problems)}.",
            hint="Compile it again, or restore the files.",
        )
    return bundle


def bundle_problems(bundle: Bundle) -> list[str]:
    """What differs from a bundle's manifest, and what a bundle needs and its manifest doesn't have, in words."""
    absent = [f"{name}: missing, and not in {MANIFEST_NAME}" for name in _NEEDED if name not in bundle.manifest.files]
    return bundle.check_hashes() + absent


def bundle_program(folder: Path) -> Program:
    """The compiled program of a bundle whose hashes were checked.

    A matching hash proves that the bundle is whole, not who made it: its ``.pt2`` can run code when it is loaded.
    """
    with without_tracebacks("torch.export"):
        return Program.load(folder / MODEL_PT2).eval()


def bundle_onnx(folder: Path) -> Path:
    """The ONNX file that the bundle's engine is built from."""
    return next((folder / name for name in TYPED_ONNX.values() if (folder / name).exists()), folder / MODEL_ONNX)


def onnx_predictor(engine: OnnxRuntimeEngine) -> Callable[[Tensor], Tensor]:
    """An ONNX model with one input as a function of a batch."""
    return lambda inputs: from_numpy(engine(inputs.numpy())[0])


def onnx_inputs(engine: OnnxRuntimeEngine, batch: int, seed: int) -> list[NDArray[Any]]:
    """Standard normal float32 inputs of a model.

    Args:
        engine: the model.
        batch: size of a dynamic first dimension.
        seed: of the values.

    Raises:
        InputError: another dimension than the first is dynamic, or the batch is fixed to another size.
    """
    generator = np.random.default_rng(seed)
    result: list[NDArray[Any]] = []
    for name, shape in zip(engine.input_names, engine.input_shapes, strict=True):
        if any(not isinstance(size, int) for size in shape[1:]):
            raise InputError(f"Input {name!r} has the shape {list(shape)}: only the batch may be dynamic.")
        if shape and isinstance(shape[0], int) and shape[0] != batch:
            raise InputError(f"Input {name!r} has its batch fixed to {shape[0]}.", hint=f"Use --batch {shape[0]}.")
        result.append(generator.standard_normal((batch, *shape[1:]) if shape else ()).astype(np.float32))
    return result
