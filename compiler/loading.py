"""Checkpoints: from a file to a `Program`.

A ``state_dict`` and safetensors are read without running any code from them. A pickled module and a ``.pt2`` archive
can run whatever their author put there, so they are read only if the caller trusts them. A ``.pt2`` that lies in a
bundle, unchanged since its manifest was written, needs no such word; that proves that it is whole, not who made it.
"""

import io
import logging
import re
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prunec.compiler.manifest import MANIFEST_NAME, FileEntry, Manifest, file_sha256
from prunec.compiler.state_dict import load_state, unwrap
from prunec.passes.errors import InputError, UnsupportedModelError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.program import Program

_BATCH = 2
#: What torch says where weights_only met something that is no tensor or plain value.
_UNSAFE = re.compile(r"\bGLOBAL\b|unsupported (?:class|operand)", re.IGNORECASE)
#: How zip archives and pickles begin.
_STARTS = (b"PK", b"\x80")
_GLOBAL = re.compile(r"GLOBAL:? ([\w.]+)")


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that is ready to compile.

    Attributes:
        program: the captured network, in eval mode; `Program.origin` is the sha256 of its weights.
        module: the eager network with the weights in it; None for a ``.pt2``.
        notes: what was done to the file's contents on the way, in words.
    """

    program: Program
    module: nn.Module | None
    notes: tuple[str, ...] = ()


def load_checkpoint(
    path: str | Path,
    *,
    model: Callable[[], nn.Module] | None = None,
    example_inputs: tuple[Tensor, ...] | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    trust: bool = False,
) -> LoadedCheckpoint:
    """Read a trained network and capture it.

    Args:
        path: a ``.pt2`` archive of torch.export, a pickled ``nn.Module``, or a ``state_dict`` as ``.pt``, ``.pth`` or
            ``.safetensors``.
        model: builds the network that a ``state_dict`` belongs to.
        example_inputs: inputs to capture with.
        input_shapes: shape of one sample of each input, without the batch; random inputs are drawn then.
        trust: whether code that the file brings may run.

    Raises:
        InputError: the file is missing, truncated or corrupt, isn't trusted, doesn't fit the network, or holds weights
            that are not finite.
        UsageError: the network or its input shape isn't known, or the shape contradicts the archive's.
        UnsupportedModelError: the network doesn't run on the inputs, or can't be captured.
    """
    path = Path(path)
    _check_file(path)
    exported = _is_exported(path)
    _check_sums(path)
    if exported:
        return _load_exported(path, input_shapes, trust)
    content, notes = unwrap(_read(path, trust))
    if isinstance(content, nn.Module):
        module = content
    else:
        module, more = load_state(_build(model, path), content, path)
        notes += more
    _check_finite(module.state_dict(), path)
    if other := _other_types(module.named_parameters()):
        module = module.float()
        notes += (f"The network is of type {other}; it was converted to float32.",)
    inputs = example_inputs if example_inputs is not None else _random_inputs(module, input_shapes, path)
    with _without_its_graphs():
        program = capture(module, inputs)
    return LoadedCheckpoint(program, module, notes)


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(
                f"Checkpoint {path} is a folder, not a file.",
                hint="prunec eval, profile, verify and build take the folder that `prunec compile` wrote.",
            )
        if not path.exists():
            what = "is a link to nothing" if path.is_symlink() else "doesn't exist"
            raise InputError(f"Checkpoint {path} {what}.", hint=_nearby(path))
        if path.stat().st_size == 0:
            raise InputError(f"Checkpoint {path} is empty (0 bytes).", hint="Copy or save it again.")
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"Checkpoint {path} can't be read: {error.strerror or error}.") from error


def _nearby(path: Path) -> str | None:
    suffixes = (".pt", ".pth", ".pt2", ".safetensors")
    names = [p.name for p in sorted(path.parent.glob("*")) if p.suffix in suffixes and p.exists()]
    return f"In {path.parent} there are: {', '.join(names[:5])}." if path.parent.is_dir() and names else None


def _is_exported(path: Path) -> bool:
    """Whether the file is an archive of torch.export; its name decides only where its content can't."""
    try:
        if not zipfile.is_zipfile(path):
            return path.suffix == ".pt2"
        return _has_entry(path, "/archive_format", "serialized_exported_program.json")
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # bad versions and bad names of entries too
        raise _corrupt(path, str(error)) from error


def _check_sums(path: Path) -> None:
    """Refuse an archive with entries that aren't what was written; torch itself doesn't look at their checksums.

    It can be told to write none: then not one of them fits, and that says nothing.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        broken = [name for name in names if not _is_whole(archive, name)]
    if broken and len(broken) < len(names):
        raise _corrupt(path, f"the checksum of {broken[0]} in it doesn't fit")


def _is_whole(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as entry:
            while entry.read(1 << 20):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        return False
    return True


def _other_types(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """Floating-point types other than float32 among parameters; all else here computes in float32."""
    types = {p.dtype for _, p in parameters if p.is_floating_point()} - {torch.float32}
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))


def _load_exported(path: Path, shapes: Sequence[Sequence[int]] | None, trust: bool) -> LoadedCheckpoint:
    if not zipfile.is_zipfile(path):
        raise _corrupt(path, "it is no zip archive, as .pt2 files are")
    notes = () if trust else (_vouched(path),)
    with without_tracebacks("torch.export"):
        program = Program.load(path).eval()
    _check_finite(program.tensors(), path)
    if other := _other_types(program.parameters().items()):
        raise UnsupportedModelError(
            f"{path} holds a network of type {other}; expected float32.",
            hint="Export it again after model.float().",
        )
    found = [tuple(x.shape[1:]) for x in program.example_inputs]
    asked = None if shapes is None else [tuple(shape) for shape in shapes]
    if asked is not None and asked != found:
        raise UsageError(
            f"{path} was exported for inputs of shape {_words(found)} (one sample), got {_words(asked)}.",
            hint="Leave the input shape out: a .pt2 archive knows its own.",
        )
    return LoadedCheckpoint(program, None, notes)


def _vouched(path: Path) -> str:
    """A note that the bundle around an archive vouches for it, or the reason why it isn't loaded."""
    entry = _manifest_entry(path)
    if entry is None:
        raise _untrusted(path, "a .pt2 archive: torch.export's loader may unpickle, and so run, what is in it")
    found = file_sha256(path)
    if found != entry.sha256:
        raise _untrusted(
            path,
            f"a .pt2 archive that is not the one its bundle was written with: its sha256 is {found[:12]}..., "
            f"in {MANIFEST_NAME} {entry.sha256[:12]}...",
        )
    return f"{path} is as the {MANIFEST_NAME} beside it says; that proves that it is whole, not who made it."


def _manifest_entry(path: Path) -> FileEntry | None:
    """What the manifest beside a file says of it; None where there is no manifest of a bundle."""
    try:
        manifest = Manifest.model_validate_json((path.parent / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest.files.get(path.name)


@contextmanager
def without_tracebacks(logger_name: str) -> Iterator[None]:
    """Silence a logger that prints the traceback of an error besides raising it."""
    logger = logging.getLogger(logger_name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _without_its_graphs() -> Iterator[None]:
    """Drop what torch.export prints of a network that it can't capture: its error says where."""
    said = io.StringIO()
    with redirect_stderr(said):
        yield
    sys.stderr.write(said.getvalue())


def _read(path: Path, trust: bool) -> object:
    """The content of a file, first in the way that runs no code."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise _corrupt(path, str(error)) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A file that can't be read raises nearly anything: EOFError, KeyError, RuntimeError, UnpicklingError.
        text = str(error)
        if "TorchScript" in text:
            raise InputError(
                f"{path} is a TorchScript archive, which prunec doesn't read.",
                hint="Save the network's state_dict, or export it with torch.export.",
            ) from error
        if not _UNSAFE.search(text) or not _start(path).startswith(_STARTS):
            raise _corrupt(path, _reason(path, error)) from error
        if not trust:
            found = _GLOBAL.search(text)
            what = f", {found[1]} for one" if found else ""
            raise _untrusted(path, f"pickled objects other than tensors{what}") from error
    return _unpickle(path)


def _reason(path: Path, error: Exception) -> str:
    start = _start(path)
    if not start.startswith(_STARTS):
        return f"it starts with {start!r}, as no PyTorch file does"
    if zipfile.is_zipfile(path) and not _has_entry(path, "data.pkl"):
        return "it is a zip archive, but none that PyTorch wrote"
    said = str(error).partition(". ")[0].splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _has_entry(path: Path, *names: str) -> bool:
    """Whether the name of some entry of an archive ends like one of these."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(names) for name in archive.namelist())


def _unpickle(path: Path) -> object:
    """Unpickle a trusted file; modules beside it can be imported meanwhile."""
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise InputError(
            f"{path} can't be unpickled: {type(error).__name__}: {error}",
            hint="A pickled network needs the code of its class, under the module name it was saved with. "
            "A state_dict with a factory doesn't.",
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))


def _build(model: Callable[[], nn.Module] | None, path: Path) -> nn.Module:
    if model is None:
        raise UsageError(
            f"{path} holds weights only, and the network they belong to isn't named.",
            hint='Name its factory: [model] factory = "module:callable" in prunec.toml, or --model module:callable.',
        )
    name = f"{getattr(model, '__module__', '')}:{getattr(model, '__qualname__', model)}".rpartition(".")[2]
    try:
        module = model()
    except Exception as error:
        raise UsageError(f"The model factory {name} fails: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"The model factory {name} gives {type(module).__name__}, expected a torch.nn.Module.")
    return module


def _random_inputs(module: nn.Module, shapes: Sequence[Sequence[int]] | None, path: Path) -> tuple[Tensor, ...]:
    if not shapes:
        raise UsageError(
            f"The input shape of {path} isn't known.",
            hint="Give one sample's shape: input = [3, 224, 224] under [model] in prunec.toml, or --input 3,224,224.",
        )
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return tuple(torch.randn(_BATCH, *shape, generator=generator).to(dtype) for shape in shapes)


def _check_finite(tensors: Mapping[str, Any], path: Path) -> None:
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            bad = tensor.numel() - int(torch.isfinite(tensor).sum())
            if bad:
                raise InputError(
                    f"{path}: {bad} of {tensor.numel()} values of {name} are not finite (NaN or infinity).",
                    hint="The training run probably diverged: use an earlier checkpoint.",
                )


def _words(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)


def _corrupt(path: Path, why: str) -> InputError:
    return InputError(
        f"Checkpoint {path} can't be read: {why}.",
        hint="It may be truncated or corrupt, or no PyTorch checkpoint. Copy or save it again.",
    )


def _untrusted(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} holds {what}. Loading such a file can run any code that its author put there.",
        hint="Save the state_dict instead (torch.save(model.state_dict(), ...)) and name a factory; "
        "or, if you trust where the file is from, add --trust-checkpoint.",
    )
