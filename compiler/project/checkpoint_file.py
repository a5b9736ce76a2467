"""Whether there is a checkpoint to read, which is told before anything slow is loaded. Imports no torch."""

from pathlib import Path

from prunec.passes.archives import check_regular, check_zip
from prunec.passes.errors import InputError


def check_file(path: Path) -> None:
    """Raise `InputError` where there is no file with something in it that may be read, and can be without harm."""
    try:
        if path.is_dir():
            raise InputError(
                f"Checkpoint {path} is a folder, not a file.",
                hint="prunec eval, profile, verify and build take the folder that `prunec compile` wrote.",
            )
        if not path.exists():
            what = "is a link to nothing" if path.is_symlink() else "doesn't exist"
            raise InputError(f"Checkpoint {path} {what}.", hint=_nearby(path))
        check_regular(path)
        if path.stat().st_size == 0:
            raise InputError(f"Checkpoint {path} is empty (0 bytes).", hint="Copy or save it again.")
        with path.open("rb"):
            check_zip(path)
    except OSError as error:
        raise InputError(f"Checkpoint {path} can't be read: {error.strerror or error}.") from error


def _nearby(path: Path) -> str | None:
    suffixes = (".pt", ".pth", ".pt2", ".safetensors")
    names = [p.name for p in sorted(path.parent.glob("*")) if p.suffix in suffixes and p.exists()]
    return f"In {path.parent} there are: {', '.join(names[:5])}." if path.parent.is_dir() and names else None
