"""Reading bundles: manifest, report, and the programs in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from prunec.compiler.bundle.bundle_names import MODEL_ONNX, MODEL_PT2, PLAN, REPORT, TYPED_ONNX
from prunec.compiler.bundle.manifest import MANIFEST_NAME, Manifest, file_names, strange_kind
from prunec.compiler.machine.file_hash import file_sha256
from prunec.compiler.machine.quiet_libraries import without_tracebacks
from prunec.compiler.report.report import MAX_REPORT_BYTES, Report
from prunec.passes.boundary import file_bytes, reading, shortened
from prunec.passes.errors import InputError

if TYPE_CHECKING:  # imports torch, which comparing runs does without
    from prunec.passes.program import Program

#: Files that every bundle has, besides its report.
_NEEDED = (MODEL_ONNX, MODEL_PT2, PLAN)
_COMPILE_AGAIN = "Compile the bundle again."
Document = TypeVar("Document")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk that can be read; `check_hashes` says whether its files are intact."""

    folder: Path
    manifest: Manifest
    report: Report

    def check_hashes(self) -> list[str]:
        """Problems in words: files that are missing, changed or unexpected; empty where all is well."""
        present, expected = set(file_names(self.folder)), self.manifest.files
        problems = [f"{name}: missing" for name in expected if name not in present]
        problems += [f"{name}: unexpected, not in {MANIFEST_NAME}" for name in sorted(present - expected.keys())]
        if strange := strange_kind(self.folder, MANIFEST_NAME):
            problems.append(f"{MANIFEST_NAME}: {strange}, not a file of the bundle")
        for name in (name for name in expected if name in present):
            path, entry = self.folder / name, expected[name]
            try:
                size, strange = path.stat().st_size, strange_kind(self.folder, name)
                sha256 = "" if strange else file_sha256(path)
            except OSError as error:
                problems.append(f"{name}: cannot be read, {error.strerror or error}")
                continue
            if strange:
                problems.append(f"{name}: {strange}, not a file of the bundle")
            elif size != entry.bytes:
                problems.append(f"{name}: changed, {size} bytes where the manifest says {entry.bytes}")
            elif sha256 != entry.sha256:
                problems.append(f"{name}: changed, sha256 {sha256[:12]}... where it says {entry.sha256[:12]}...")
        return problems


def read_bundle(path: Path) -> Bundle:
    """Open a bundle.

    Raises:
        InputError: There is no such folder, it is no bundle, or its manifest or report is corrupt.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is a file, not a bundle folder" if path.exists() else "does not exist"
        raise InputError(f"Bundle {path} {what}.", hint="Give the folder that `prunec compile` wrote.")
    for name in (MANIFEST_NAME, REPORT):
        if strange := strange_kind(path, name):
            raise InputError(f"{path / name} is {strange}, not a file of the bundle.")
    if not (path / MANIFEST_NAME).is_file():
        raise InputError(f"{path} is not a bundle: it has no {MANIFEST_NAME}.")
    manifest = _parsed(path / MANIFEST_NAME, Manifest.model_validate_json)
    return Bundle(path, manifest, _parsed(path / REPORT, Report.from_json))


def intact_bundle(path: Path) -> Bundle:
    """A bundle that has all that a bundle needs, and whose files have the hashes of its manifest.

    Raises:
        InputError: There is no bundle, something is missing, or its files differ.
    """
    bundle = read_bundle(path)
    refuse(bundle, bundle_problems(bundle))
    check_models(bundle)
    return bundle


def refuse(bundle: Bundle, problems: Sequence[str]) -> None:
    """Raise `InputError` where a bundle has problems."""
    if problems:
        raise InputError(
            f"Bundle {bundle.folder} differs from its manifest: {'; '.join(problems)}.",
            hint="Compile it again, or restore the files.",
        )


def bundle_problems(bundle: Bundle) -> list[str]:
    """Sentences on the files that differ from a bundle's manifest, or that a bundle needs and its manifest lacks."""
    absent = [f"{name}: missing, and not in {MANIFEST_NAME}" for name in _NEEDED if name not in bundle.manifest.files]
    return bundle.check_hashes() + absent


def check_models(bundle: Bundle) -> None:
    """Look at the ONNX files of a bundle whose hashes were checked.

    Raises:
        InputError: One can't be read, or has values outside of the bundle or larger than what it stores.
    """
    from prunec.runtime.onnx_reading import read_onnx

    for name in bundle.manifest.files:
        if name.endswith(".onnx"):
            read_onnx(bundle.folder / name)


def bundle_program(folder: Path) -> "Program":
    """The compiled program of a bundle whose hashes were checked.

    A matching hash proves that the bundle is whole, not who made it: a ``.pt2`` of other things than plain data is
    refused.

    Raises:
        InputError: It can't be read, or could run code of its author.
    """
    from prunec.passes.program import Program

    with without_tracebacks("torch.export"):
        return Program.load(folder / MODEL_PT2).eval()


def bundle_onnx(folder: Path) -> Path:
    """The ONNX file that the bundle's engine is built from."""
    return next((folder / name for name in TYPED_ONNX.values() if (folder / name).exists()), folder / MODEL_ONNX)


def _parsed(path: Path, read: Callable[[bytes], Document]) -> Document:
    content = file_bytes(path, MAX_REPORT_BYTES, f"Bundle file {path}")
    with reading(f"Bundle file {path}", hint=_COMPILE_AGAIN):
        try:
            return read(content)
        except ValidationError as error:
            first = min(error.errors(), key=lambda problem: problem["loc"] != ("schema",))
            where, said = (shortened(text) for text in (".".join(map(str, first["loc"])), first["msg"]))
            raise InputError(
                f"Bundle file {path} is corrupt or of another version: {where or 'the whole file'}: {said}.",
                hint=_COMPILE_AGAIN,
            ) from error
