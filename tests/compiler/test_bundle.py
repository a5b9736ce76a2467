import errno
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunec.compiler.bundle import bundle_writer as writer
from prunec.compiler.bundle import swap
from prunec.compiler.bundle.bundle_names import default_output
from prunec.compiler.bundle.bundle_reader import read_bundle
from prunec.compiler.bundle.bundle_writer import BundleWriter, amend_bundle
from prunec.compiler.bundle.manifest import Manifest
from prunec.passes.errors import EnvironmentFailure, InputError, UsageError
from prunec.runtime.target import Target
from tests.compiler.sample_report import sample_report


def write_bundle(path: Path, *, force: bool = False, model: bytes = b"weights") -> Path:
    with BundleWriter(path, force, seed=3) as folder:
        (folder / "report.json").write_text(sample_report().to_json(), encoding="utf-8")
        (folder / "model.onnx").write_bytes(model)
        (folder / "data").mkdir()
        (folder / "data" / "part").write_bytes(b"")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bundle_name() -> None:
    target = Target.parse("a100-2:4")
    assert default_output(Path("runs/model.v2.pt"), target) == Path("runs/model.v2.a100-2_4-fp16.bundle")
    assert default_output(Path("model.pt"), target) == Path("model.a100-2_4-fp16.bundle")


def test_a_bundle_is_written_whole(tmp_path: Path) -> None:
    bundle = read_bundle(write_bundle(tmp_path / "m.bundle"))
    assert names(tmp_path) == ["m.bundle"]
    assert list(bundle.manifest.files) == ["data/part", "model.onnx", "report.json"]
    assert bundle.manifest.files["model.onnx"].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert bundle.manifest.files["model.onnx"].bytes == 7
    assert bundle.manifest.seed == 3
    assert {"python", "torch", "onnx"} <= bundle.manifest.versions.keys()
    assert bundle.report == sample_report()
    assert bundle.check_hashes() == []


def test_the_manifest_is_reproducible(tmp_path: Path) -> None:
    first, second = (write_bundle(tmp_path / name) / "manifest.json" for name in ("a.bundle", "b.bundle"))
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.read_text())["schema"] == 1


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    mode = (tmp_path / "plain").stat().st_mode
    assert write_bundle(tmp_path / "m.bundle").stat().st_mode == mode


def test_an_existing_bundle_needs_force(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "m.bundle")
    with pytest.raises(UsageError, match="--force"), BundleWriter(path):
        pytest.fail("entered")
    write_bundle(path, force=True, model=b"new")
    assert (path / "model.onnx").read_bytes() == b"new"
    assert names(tmp_path) == ["m.bundle"]
    assert read_bundle(path).check_hashes() == []


@pytest.mark.parametrize("manifest", [None, b"{", b'{"name": "a web application"}', b"[]", b"\xff"])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, manifest: bytes | None) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("words")
    if manifest is not None:
        (tmp_path / "thesis" / "manifest.json").write_bytes(manifest)
    with pytest.raises(UsageError, match="not a prunec bundle"), BundleWriter(tmp_path / "thesis", force=True):
        pytest.fail("entered")
    assert (tmp_path / "thesis" / "chapter1").read_text() == "words"


def test_outputs_that_can_be_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="leads in a circle"):
        BundleWriter(tmp_path / "loop")
    with pytest.raises(UsageError, match="root"):
        BundleWriter(Path("/"))


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "m.bundle").write_text("words")
    with pytest.raises(UsageError, match="not a prunec bundle"), BundleWriter(tmp_path / "m.bundle", force=True):
        pytest.fail("entered")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, FileNotFoundError])
def test_nothing_is_left_after_an_interrupt(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), BundleWriter(tmp_path / "m.bundle") as folder:
        (folder / "model.onnx").write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


def test_the_old_bundle_survives_an_interrupt(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "m.bundle")
    with pytest.raises(KeyboardInterrupt), BundleWriter(path, force=True) as folder:
        (folder / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["m.bundle"]
    assert read_bundle(path).check_hashes() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("step", [1, 2])
def test_the_old_bundle_survives_a_failed_swap_where_names_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, step: int
) -> None:
    path = write_bundle(tmp_path / "m.bundle")
    rename, calls = Path.rename, iter(range(1, 9))

    def failing(self: Path, target: Path) -> Path:
        if next(calls) == step:
            raise error
        return rename(self, target)

    monkeypatch.setattr(swap, "_exchanged", lambda *_: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else EnvironmentFailure):
        write_bundle(path, force=True, model=b"new")
    assert names(tmp_path) == ["m.bundle"]
    assert (path / "model.onnx").read_bytes() == b"weights"


def test_a_missing_parent_is_found_up_front(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="mkdir -p"), BundleWriter(tmp_path / "no" / "m.bundle"):
        pytest.fail("entered")


def test_an_unwritable_parent_is_found_up_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(EnvironmentFailure, match="Permission denied") as caught, BundleWriter(tmp_path / "m.bundle"):
        pytest.fail("entered")
    assert caught.value.exit_code == 10


def test_a_full_disk_is_an_environment_failure(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="No space left"), BundleWriter(tmp_path / "m.bundle") as folder:
        (folder / "model.onnx").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_what_comes_there_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.bundle"
    other = write_bundle(tmp_path / "other.bundle")
    with pytest.raises(UsageError, match="exists already"), BundleWriter(path) as folder:
        (folder / "model.onnx").write_bytes(b"second")
        other.rename(path)
    assert (path / "model.onnx").read_bytes() == b"weights"
    assert names(tmp_path) == ["m.bundle"]


def test_what_comes_there_during_the_commit_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, describe, other = tmp_path / "m.bundle", writer.describe_folder, write_bundle(tmp_path / "other.bundle")

    def describe_slowly(folder: Path, seed: int | None) -> Manifest:
        other.rename(path)
        return describe(folder, seed)

    monkeypatch.setattr(writer, "describe_folder", describe_slowly)
    with pytest.raises(UsageError, match="exists already"):
        write_bundle(path, model=b"second")
    assert (path / "model.onnx").read_bytes() == b"weights"
    assert names(tmp_path) == ["m.bundle"]


def test_hashes_tell_what_was_done(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "m.bundle")
    (path / "model.onnx").write_bytes(b"WEIGHTS")
    (path / "report.json").write_text(sample_report().to_json() + " ")
    (path / "data" / "part").unlink()
    (path / "extra").write_bytes(b"")
    problems = read_bundle(path).check_hashes()
    assert [problem.split(",")[0] for problem in problems] == [
        "data/part: missing",
        "extra: unexpected",
        "model.onnx: changed",
        "report.json: changed",
    ]
    (path / "model.onnx").unlink()
    (path / "model.onnx").symlink_to(tmp_path / "nowhere")
    assert "model.onnx: cannot be read, No such file or directory" in read_bundle(path).check_hashes()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", b"", "corrupt or of another version"),
        ("manifest.json", b'{"schema": 2, "tool": "prunec"}', "schema: Input should be 1"),
        ("report.json", b'{"schema": 1}', "report.json is corrupt"),
        ("report.json", b"\xff\xfe", "report.json can't be read"),
    ],
)
def test_corrupt_bundles_are_unusable_input(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    path = write_bundle(tmp_path / "m.bundle")
    (path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_bundle(path)
    assert caught.value.exit_code == 9


def test_what_cannot_be_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_bundle(tmp_path / "none.bundle")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        read_bundle(tmp_path / "file")
    with pytest.raises(InputError, match=r"it has no manifest\.json"):
        read_bundle(tmp_path)
    path = write_bundle(tmp_path / "m.bundle")
    (path / "report.json").unlink()
    with pytest.raises(InputError, match=r"report\.json can't be read"):
        read_bundle(path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../b", "a\\b", "./a", ""])
def test_a_manifest_cannot_point_outside(name: str) -> None:
    entry = {"sha256": "0" * 64, "bytes": 1}
    with pytest.raises(ValueError, match="not a plain relative path"):
        Manifest.model_validate({"seed": 0, "versions": {}, "files": {name: entry}})


@given(
    seed=st.none() | st.integers(0, 2**63),
    files=st.dictionaries(st.from_regex(r"\A[a-z]{1,8}(/[a-z.]{3,8}x)?\Z"), st.binary(max_size=4), max_size=4),
)
def test_manifest_round_trip(seed: int | None, files: dict[str, bytes]) -> None:
    entries = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    manifest = Manifest.model_validate({"seed": seed, "versions": {"torch": "2"}, "files": entries})
    assert Manifest.model_validate_json(manifest.to_json()) == manifest


def test_amend_adds_a_file_and_keeps_the_rest(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "m.bundle")
    with amend_bundle(read_bundle(path)) as writing:
        (writing.folder / "engine.plan").write_bytes(b"engine")
    bundle = read_bundle(path)
    assert list(bundle.manifest.files) == ["data/part", "engine.plan", "model.onnx", "report.json"]
    assert bundle.check_hashes() == []
    assert bundle.manifest.seed == 3
    assert names(tmp_path) == ["m.bundle"]


def test_an_interrupted_amend_changes_nothing(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "m.bundle")
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(KeyboardInterrupt), amend_bundle(read_bundle(path)) as writing:
        (writing.folder / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt
    assert (path / "manifest.json").read_bytes() == before
    assert read_bundle(path).check_hashes() == []
    assert names(tmp_path) == ["m.bundle"]


def test_an_output_that_is_no_utf8_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"b\\udcff\.bundle' is no text in UTF-8"):
        BundleWriter(tmp_path / "b\udcff.bundle")


def test_a_relative_path_and_a_link_to_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "m.bundle")
    (tmp_path / "latest").symlink_to("m.bundle")
    monkeypatch.chdir(tmp_path)
    write_bundle(Path("latest"), force=True, model=b"new")
    assert (tmp_path / "m.bundle" / "model.onnx").read_bytes() == b"new"
    assert (tmp_path / "latest").is_symlink()
