"""One run at a time writes an output, and the lock of one that is gone is taken over."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from prunec.compiler.bundle import output_lock, swap
from prunec.compiler.bundle.bundle_writer import BundleWriter, refuse_states
from prunec.compiler.bundle.output_lock import OutputLock, Owner
from prunec.passes.errors import EnvironmentFailure, UsageError

HOLD = """
import sys, time
from pathlib import Path
from prunec.compiler.bundle.bundle_writer import BundleWriter
with BundleWriter(Path(sys.argv[1]), force=True) as folder:
    (folder / "model.onnx").write_bytes(b"half")
    print("held", flush=True)
    time.sleep(600)
"""


def holding(output: Path) -> "subprocess.Popen[str]":
    """Another process that writes an output."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def without_flock(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_another_run_is_named_and_its_leftovers_go_with_it(tmp_path: Path) -> None:
    output = tmp_path / "m.bundle"
    process = holding(output)
    with pytest.raises(EnvironmentFailure, match=rf"Another run writes.*process {process.pid} on ") as caught:
        BundleWriter(output).__enter__()
    assert caught.value.exit_code == 10
    assert f"kill {process.pid}" in str(caught.value)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.bundle.lock", ".m.bundle.tmp"]
    (tmp_path / "m.bundle.state").mkdir()
    (tmp_path / "m.bundle.state/recover-0.state.unfinished").touch()
    with BundleWriter(output) as folder:
        assert list(folder.iterdir()) == []
        assert list((tmp_path / "m.bundle.state").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bundle", "m.bundle.state"]


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        (lambda here: here, True),
        (lambda here: replace(here, host="elsewhere", boot="another"), False),
        (lambda here: replace(here, host="elsewhere", boot=""), False),
        (lambda here: replace(here, boot="before it was booted"), True),
        (lambda here: replace(here, host="a container of this host"), True),
    ],
)
def test_a_lock_is_taken_over_only_where_its_owner_was_here(
    tmp_path: Path, change: Callable[[Owner], Owner], is_taken: bool
) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps(asdict(change(Owner.here()))))
    lock = OutputLock(path, "m.bundle")
    if is_taken:
        lock.acquire()
        lock.release()
        assert not path.exists()
        return
    with pytest.raises(EnvironmentFailure, match=f"on elsewhere(?s:.*)remove {path}"):
        lock.acquire()
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 200])
def test_a_lock_that_names_nobody_is_that_of_a_run_which_died_taking_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    OutputLock(tmp_path / "lock", "m.bundle").acquire()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"host": 1}', b"\xff", b"null", b"export PATH=/bin"])
@pytest.mark.parametrize("place", [lambda path, _: path, lambda _, link: link], ids=["itself", "link"])
def test_a_file_that_is_no_lock_stays_as_it_is(
    tmp_path: Path, content: bytes, place: Callable[[Path, Path], Path]
) -> None:
    theirs, link = tmp_path / "theirs", tmp_path / "link"
    theirs.write_bytes(content)
    link.symlink_to(theirs)
    with pytest.raises(EnvironmentFailure, match="is no lock of prunec's"):
        OutputLock(place(theirs, link), "m.bundle").acquire()
    assert theirs.read_bytes() == content


@pytest.mark.parametrize(
    "make",
    [
        lambda path, _: path.symlink_to(path.with_name("nowhere")),
        lambda path, theirs: path.symlink_to(theirs),
        lambda path, theirs: path.hardlink_to(theirs),
        lambda path, _: path.mkdir(),
        lambda path, _: os.mkfifo(path),
    ],
    ids=["dangling link", "link", "hard link", "folder", "fifo"],
)
def test_what_lies_at_the_place_of_a_lock_is_not_touched(tmp_path: Path, make: Callable[[Path, Path], object]) -> None:
    theirs = tmp_path / "theirs"
    theirs.touch()
    make(tmp_path / "lock", theirs)
    with pytest.raises(EnvironmentFailure, match="is no lock of prunec's"):
        OutputLock(tmp_path / "lock", "m.bundle").acquire()
    assert theirs.read_bytes() == b""
    assert not (tmp_path / "nowhere").exists()


def test_states_are_not_kept_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "m.bundle.state").symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match="is in the way"):
        refuse_states(tmp_path / "m.bundle.state", resume=True, force=True)


@pytest.mark.parametrize("suffix", ["old", "tmp"])
def test_a_file_in_the_place_of_a_hidden_folder_is_named_and_stays(tmp_path: Path, suffix: str) -> None:
    theirs = tmp_path / f".m.bundle.{suffix}"
    theirs.write_text("theirs")
    with pytest.raises(EnvironmentFailure, match=rf"\.m\.bundle\.{suffix} is in the way"):
        BundleWriter(tmp_path / "m.bundle").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == [theirs.name]


def test_a_link_in_the_place_of_what_stepped_aside_is_removed_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".m.bundle.old").symlink_to(tmp_path / "theirs")
    with BundleWriter(tmp_path / "m.bundle"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bundle", "theirs"]


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        (lambda here: here, False),
        (lambda here: replace(here, start="0"), True),
        (lambda here: replace(here, pid=2**22 + 1), True),
        (lambda here: replace(here, pid=2**22 + 1, pid_namespace="pid:[1]"), False),
        (lambda here: replace(here, boot="before it was booted"), True),
    ],
)
def test_without_locks_of_the_kernel_the_process_itself_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Owner], Owner], is_taken: bool
) -> None:
    monkeypatch.setattr("fcntl.flock", without_flock)
    (tmp_path / "lock").write_text(json.dumps(asdict(change(Owner.here()))))
    lock = OutputLock(tmp_path / "lock", "m.bundle")
    if is_taken:
        lock.acquire()
        return
    with pytest.raises(EnvironmentFailure, match="Another run writes"):
        lock.acquire()


@pytest.mark.parametrize("is_left", [True, False], ids=["abandoned", "fresh"])
def test_of_many_at_once_one_has_the_lock(tmp_path: Path, is_left: bool) -> None:
    path = tmp_path / "lock"
    if is_left:
        path.write_text(json.dumps(asdict(replace(Owner.here(), start="0"))))

    def taken(_: int) -> OutputLock | None:
        lock = OutputLock(path, "m.bundle")
        try:
            lock.acquire()
        except EnvironmentFailure:
            return None
        return lock

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            held = [lock for lock in pool.map(taken, range(8)) if lock is not None]
        assert len(held) == 1
        assert output_lock.Owner.read(path.read_bytes()) is not None
        held[0].release()


def test_a_process_that_forks_others_of_its_name_is_not_mistaken(tmp_path: Path) -> None:
    here = Owner.here()
    assert here.pid == os.getpid()
    assert here.is_of(here)
    assert not here.is_gone(here)


@pytest.mark.parametrize("is_exchanged", [True, False])
def test_two_folders_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_exchanged: bool) -> None:
    if not is_exchanged:
        monkeypatch.setattr(swap, "_exchanged", lambda *_: False)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    swap.exchange(first, second, tmp_path / "aside")
    assert (first / "name").read_text() == "second"
    assert (second / "name").read_text() == "first"
    assert not (tmp_path / "aside").exists()


def test_a_name_is_never_missing_while_two_change_places(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    if not swap._exchanged(first, second):
        pytest.skip("this file system can't exchange two names")
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(lambda: all(second.exists() for _ in range(20000)))
        while not looking.done():
            swap.exchange(first, second, tmp_path / "aside")
    assert looking.result()


def test_a_crash_between_two_renames_is_mended_by_the_next_run(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "m.bundle") as folder:
        (folder / "model.onnx").write_bytes(b"old")
    (tmp_path / "m.bundle").rename(tmp_path / ".m.bundle.old")
    with pytest.raises(ValueError, match="later"), BundleWriter(tmp_path / "m.bundle", force=True):
        raise ValueError("later")
    assert (tmp_path / "m.bundle/model.onnx").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["m.bundle"]
