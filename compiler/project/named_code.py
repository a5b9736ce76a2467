"""Code that a project file names, and whether it may run from where the file lies."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prunec.calibration.config import SOURCES
from prunec.compiler.bundle.bundle_names import MODEL_ONNX, MODEL_PT2, REPORT
from prunec.compiler.bundle.manifest import MANIFEST_NAME
from prunec.compiler.project.config import Config, find_config, load_config
from prunec.passes.errors import InputError

_REFERENCE = re.compile(r"(?<![\w.:])[A-Za-z_][\w.]*:[A-Za-z_]\w*(?![\w.:=])")
#: Files that lie in a folder only where an archive of torch was unpacked into it.
_UNPACKED = ("data.pkl", "archive_format", "archive_version", "serialized_exported_program.json")
#: Ends of the names of folders that a compile writes: a bundle, and the states of its trainings.
_WRITTEN = (".bundle", ".state")


def find_project(near: Path | None, config: Path | None, note: Callable[[str], None] | None = None) -> Config:
    """The project file of a checkpoint, or of the working directory.

    Args:
        near: The checkpoint.
        config: The project file that the user pointed to, whose code runs wherever it lies.
        note: Receiver of the sentence that says whose code may run.

    Raises:
        UsageError: The project file that is asked for doesn't exist, or is wrong.
        InputError: One that wasn't asked for names code, and lies in a bundle or an unpacked archive.
    """
    path = find_config(near, config)
    loaded = load_config(path)
    if path is not None and (code := named_code(loaded)):
        if config is None:
            check_place(path.absolute(), code)
        if note is not None:
            note(f"code of the project file {path} runs: {', '.join(code)}")
    return loaded


def named_code(config: Config) -> tuple[str, ...]:
    """Every ``module:callable`` that stands anywhere in a project file, in the order of the file's sections."""
    references = (
        match
        for text in _texts(config.model_dump())
        for match in _REFERENCE.findall(text)
        if match.partition(":")[0] not in SOURCES
    )
    return tuple(dict.fromkeys(references))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def check_place(config: Path, code: tuple[str, ...]) -> None:
    """Refuse the code of a project file that nobody pointed to and that came with a bundle or an archive.

    Raises:
        InputError: The file lies in one of them, or in a folder of one.
    """
    for folder in (*config.parents, *config.resolve().parents):
        if what := _not_the_users(folder):
            raise InputError(
                f"{config} names code, {', '.join(code)}, and lies in {what}: it isn't run.",
                hint=f"If you trust it, point to it: --config {config}",
            )


def _not_the_users(folder: Path) -> str:
    """What a folder is that its user didn't write, in words; "" for any other."""
    if folder.name.endswith(_WRITTEN) or _has_manifest(folder):
        return f"the folder {folder}, as prunec compile writes them"
    if any((folder / name).is_file() for name in _UNPACKED):
        return f"the unpacked archive {folder}"
    return ""


def _has_manifest(folder: Path) -> bool:
    """Whether a folder has the manifest of a bundle, or one that can't be read beside a bundle's files."""
    manifest = folder / MANIFEST_NAME
    if not manifest.is_file():
        return False
    if any((folder / name).exists() for name in (MODEL_PT2, MODEL_ONNX, REPORT)):
        return True
    try:
        document = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("tool") == "prunec"
