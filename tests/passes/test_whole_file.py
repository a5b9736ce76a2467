"""Files are written as a whole or not at all."""

from pathlib import Path

import pytest

from prunec.passes.errors import EnvironmentFailure
from prunec.passes.whole_file import write_whole


def test_what_is_there_is_replaced(tmp_path: Path) -> None:
    for text in ("first", "second \N{GREEK SMALL LETTER MU}"):
        write_whole(tmp_path / "file.txt", text)
        assert (tmp_path / "file.txt").read_text(encoding="utf-8") == text
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        write_whole(tmp_path / "folder", "text")
    with pytest.raises(EnvironmentFailure, match="there is no folder"):
        write_whole(tmp_path / "nowhere" / "file.txt", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_self: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file.txt", "text")
    assert not list(tmp_path.iterdir())
