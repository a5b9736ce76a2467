"""The boundary towards what others give: one error for all that goes wrong, and files of bounded size."""

import errno
import os
from pathlib import Path

import pytest

from prunec.passes.boundary import file_bytes, printable, reading
from prunec.passes.errors import InputError, UnsupportedModelError, UsageError, did_you_mean


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("nodes"), "x.json can't be read: 'nodes'."),
        (RecursionError("maximum"), "x.json can't be read: it is nested too deeply."),
        (OSError(errno.EIO, "Input/output error", "x"), "x.json can't be read: Input/output error."),
        (ValueError("first line.\nsecond"), "x.json can't be read: first line."),
        (AssertionError(), "x.json can't be read: AssertionError."),
        (ValueError("a" * 1000), f"x.json can't be read: {'a' * 200}... (1000 characters)."),
    ],
)
def test_whatever_goes_wrong_is_one_error(error: Exception, said: str) -> None:
    with pytest.raises(InputError) as caught, reading("x.json"):
        raise error
    assert caught.value.message == said
    assert caught.value.__cause__ is error


def test_errors_of_prunec_and_a_lack_of_memory_pass() -> None:
    with pytest.raises(UnsupportedModelError), reading("x"):
        raise UnsupportedModelError("known")
    with pytest.raises(MemoryError), reading("x"):
        raise MemoryError
    with pytest.raises(UsageError, match="x can't be read as TOML: no"), reading("x", "TOML", kind=UsageError):
        raise ValueError("no")


def test_files_are_regular_and_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert file_bytes(path, 5, "x") == b"12345"
    with pytest.raises(InputError, match="it has 5 bytes, and at most 4 are read"):
        file_bytes(path, 4, "x")
    os.mkfifo(tmp_path / "pipe")
    for other, said in (
        (tmp_path, "it is a folder"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no reg"),
    ):
        with pytest.raises(InputError, match=said):
            file_bytes(other, 4, "x")
    with pytest.raises(UsageError, match="No such file"):
        file_bytes(tmp_path / "none", 4, "x", kind=UsageError)


def test_a_name_of_any_length_is_compared_with_known_ones_soon() -> None:
    assert did_you_mean("a" * 10_000_000, ["b" * 50, "c"]).startswith("Known")


def test_words_out_of_files_don_t_control_a_terminal() -> None:
    assert printable("a\tb\nmodèle 模型") == "a\tb\nmodèle 模型"
    assert printable("\x1b]0;title\x07\x9b2J\r\u202egnp") == r"\x1b]0;title\x07\x9b2J\r\u202egnp"
