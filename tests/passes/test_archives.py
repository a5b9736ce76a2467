"""What is refused of zip archives and tensors before they are read."""

import os
import stat
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunec.passes.archives import check_regular, check_zip, leaves_folder
from prunec.passes.errors import InputError
from prunec.passes.tensors import check_stored


def test_a_plain_archive_passes(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "m.pt")
    check_zip(tmp_path / "m.pt")
    (tmp_path / "text").write_text("no archive")
    check_zip(tmp_path / "text")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "C:/x", "a\\..\\x"])
def test_entries_outside_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InputError, match="outside"):
        check_zip(tmp_path / "m.zip")


def test_links_and_twins_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, b"/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        check_zip(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "twins.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"x")
        archive.writestr("a", b"y")
    with pytest.raises(InputError, match="2 entries of the name 'a'"):
        check_zip(tmp_path / "twins.zip")


def test_bombs_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(100 << 20))
    with pytest.raises(InputError, match="would grow"):
        check_zip(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "labels.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10 << 20))  # label maps shrink as much, and 10 MB hurt nobody
    check_zip(tmp_path / "labels.zip")


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    """Entries that share one stream of bytes grow without limit, however little each of them grows."""
    path = tmp_path / "overlap.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"x" * 1000)
        for name in "bcd":
            twin = zipfile.ZipInfo(name)
            source = archive.infolist()[0]
            for field in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(twin, field, getattr(source, field))
            archive.filelist.append(twin)
            archive.NameToInfo[name] = twin
    with pytest.raises(InputError, match="share their bytes"):
        check_zip(path)


def test_pipes_sockets_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero")):
        for check in (check_regular, check_zip):
            with pytest.raises(InputError, match="not a file"):
                check(path)


@given(st.lists(st.sampled_from(["a", "b.c", "d-e"]), min_size=1))
def test_paths_within_pass(parts: list[str]) -> None:
    assert not leaves_folder("/".join(parts))
    assert leaves_folder("/".join([*parts, ".."]))
    assert leaves_folder("/" + "/".join(parts))


def test_a_view_of_one_value_is_no_terabyte(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(10**12)
    torch.save({"a": [{"b": huge}]}, tmp_path / "m.pt")
    content = torch.load(tmp_path / "m.pt", weights_only=True)
    with pytest.raises(InputError, match=r"\[1000000000000\]"):
        check_stored(content, tmp_path / "m.pt")
    circle: list[object] = [torch.zeros(3).expand(4, 3), torch.zeros(4).requires_grad_()]
    circle.append(circle)
    check_stored(circle, tmp_path / "m.pt")
