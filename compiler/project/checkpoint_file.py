"""Whether there is a checkpoint to read, which is told before anything slow is loaded. Imports no torch.

What reads archives is imported where a file is looked at: every ``--help`` imports this module.
"""

from pathlib import Path

from prunec.passes.errors import InputError

#: What names a folder of Hugging Face, as in ``hf:FOLDER``.
_HUB = "hf:"
#: The file that makes a folder one of Hugging Face.
HUB_CONFIG = "config.json"
_SUFFIXES = (".pt", ".pth", ".pt2", ".safetensors")
_ONNX_HINT = (
    "Compile the PyTorch checkpoint that it was exported from: its state_dict with a factory, or a .pt2 archive of "
    "torch.export. prunec inspect, eval and profile take ONNX files."
)
#: First bytes of files of other kinds -> what such a file is, and what to do instead.
_OTHERS = {
    b"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "Fetch it: git lfs pull."),
    b"\x89HDF": ("an HDF5 file, as Keras writes them", "Convert it to PyTorch first, and save the state_dict."),
    b"GGUF": ("a GGUF file of quantised weights", "Take the weights that it was made of, as safetensors."),
    b"<": ("a page of the web or an XML file", "Download the checkpoint itself."),
}


def checkpoint_path(text: str | Path) -> Path:
    """The path that names a checkpoint: ``hf:FOLDER`` is FOLDER, unless there is a file of the whole name.

    It has a name of its own, where "." is given too.
    """
    path = Path(text)
    if str(path).startswith(_HUB) and not path.exists():
        path = Path(str(path).removeprefix(_HUB))
    return path if path.name not in ("", "..") else path.resolve()


def is_hub_folder(path: Path) -> bool:
    """Whether a path is a folder as ``save_pretrained()`` of Hugging Face writes them."""
    return (path / HUB_CONFIG).is_file()


def stored_bytes(path: Path) -> int:
    """Size of a checkpoint's file, or of the files right in its folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def check_file(path: Path) -> None:
    """Raise `InputError` where there is no checkpoint that may be read, and can be without harm."""
    from prunec.passes.archives import check_regular, check_zip

    try:
        if path.is_dir():
            if is_hub_folder(path):
                return
            raise InputError(
                f"Checkpoint {path} is a folder, not a file.",
                hint="prunec eval, profile, verify and build take the folder that `prunec compile` wrote. A folder of "
                f"Hugging Face has a {HUB_CONFIG}.",
            )
        if not path.exists():
            what = "is a link to nothing" if path.is_symlink() else "doesn't exist"
            raise InputError(f"Checkpoint {path} {what}.", hint=_nearby(path))
        check_regular(path)
        if path.stat().st_size == 0:
            raise InputError(f"Checkpoint {path} is empty (0 bytes).", hint="Copy or save it again.")
        check_zip(path)
        _check_kind(path)
    except OSError as error:
        raise InputError(f"Checkpoint {path} can't be read: {error.strerror or error}.") from error


def _check_kind(path: Path) -> None:
    """Refuse a file of another framework, with what to do instead."""
    import zipfile

    with path.open("rb") as file:
        start = file.read(32)
    if path.suffix == ".onnx" or _is_onnx(start):
        raise InputError(f"{path} is an ONNX file; expected a network of PyTorch.", hint=_ONNX_HINT)
    if (other := next((words for first, words in _OTHERS.items() if start.startswith(first)), None)) is not None:
        raise InputError(f"{path} is {other[0]}; expected a PyTorch checkpoint.", hint=other[1])
    if zipfile.is_zipfile(path) and _is_torchscript(path):
        raise InputError(
            f"{path} is a TorchScript archive: its network is compiled code, without the modules that it was made of.",
            hint="Build the network in Python and save its state_dict, torch.save(model.state_dict(), ...), or export "
            "it with torch.export. Of the archive's own weights alone: "
            "torch.save(torch.jit.load(path).state_dict(), ...), with a factory for the network.",
        )


def _is_onnx(start: bytes) -> bool:
    """Whether a file begins as exporters write ONNX: with the version of the format, then the producer."""
    return len(start) > 3 and start[0] == 0x08 and 0 < start[1] < 0x20 and start[2] == 0x12


def _is_torchscript(path: Path) -> bool:
    """Whether an archive has the constants of compiled code. Those of torch.export have a mark of their own."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        inside = {name.partition("/")[2] for name in archive.namelist()}
    return "constants.pkl" in inside and any(name.startswith("code/") for name in inside)


def _nearby(path: Path) -> str | None:
    names = [p.name for p in sorted(path.parent.glob("*")) if p.suffix in _SUFFIXES and p.exists()]
    return f"In {path.parent} there are: {', '.join(names[:5])}." if path.parent.is_dir() and names else None
