"""The manifest of a bundle: every file with its hash and size, the tools that made it, the seed."""

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from prunec.compiler.machine.file_hash import file_sha256
from prunec.compiler.machine.versions import installed_versions
from prunec.compiler.report.report_part import SortedDict
from prunec.passes.archives import kind_of

MANIFEST_NAME = "manifest.json"


def _inside_the_bundle(files: dict[str, "FileEntry"]) -> dict[str, "FileEntry"]:
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name or name == ".":
            raise ValueError(f"{name!r} is not a plain relative path")
    return files


class FileEntry(BaseModel):
    """One file: sha256 in hexadecimal, size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """A manifest.json, schema version 1. `files` are paths relative to the bundle, with forward slashes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    schema_version: Literal[1] = Field(default=1, alias="schema")
    tool: Literal["prunec"] = "prunec"
    seed: int | None
    versions: SortedDict[str]
    files: Annotated[SortedDict[FileEntry], AfterValidator(_inside_the_bundle)]

    def to_json(self) -> str:
        """Canonical JSON with a newline at the end."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"


def describe_folder(folder: Path, seed: int | None) -> Manifest:
    """The manifest of a folder as it is now.

    Raises:
        OSError: A file cannot be read.
    """
    paths = {name: folder / name for name in file_names(folder)}
    files = {name: FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size) for name, path in paths.items()}
    return Manifest(seed=seed, versions=installed_versions(), files=files)


def file_names(folder: Path) -> list[str]:
    """Every file below `folder` except its manifest, as sorted relative paths with forward slashes."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name != MANIFEST_NAME)


def strange_kind(folder: Path, name: str) -> str:
    """What leads elsewhere under a name in a folder, or never ends: "behind a link", "a named pipe"; "" for a file."""
    path = folder / name
    if any(step.is_symlink() for step in (path, *path.parents) if folder in step.parents):
        return "behind a link"
    kind = kind_of(path)
    return "" if kind in ("file", "nothing") else kind
