"""Damaged inputs are refused: no reader ends with exit code 1, hangs, writes elsewhere or takes all memory.

A reader's first few inputs here; ``make test-long`` has 300, and ``make fuzz`` 10,000 of each.
"""

from pathlib import Path

import pytest

from tests.fuzz_readers.harness import Found, damaged, fuzz
from tests.fuzz_readers.readers import READERS

#: Codes of a refusal; the whole inputs of a checkpoint end with 2, before what costs time.
REFUSALS = {2, 3, 9, 10}


def found_by(name: str, numbers: range, folder: Path) -> Found:
    found = Found()
    fuzz(name, numbers, folder, found)
    return found


@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_are_refused_or_read(name: str, tmp_path: Path) -> None:
    found = found_by(name, range(8), tmp_path)
    assert found.faults == {}
    assert found.read == 8
    assert found.ends.keys() <= REFUSALS | {0}


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_more_damaged_inputs_are_refused_or_read(name: str, tmp_path: Path) -> None:
    found = found_by(name, range(300), tmp_path)
    assert found.faults == {}
    assert found.read == 300
    assert found.ends.keys() & REFUSALS, "nothing was refused: the damage goes unseen"


def test_an_input_is_the_same_whenever_it_is_asked_for() -> None:
    for name in ("plan", "schedule", "onnx"):
        seeds = READERS[name].seeds()
        assert damaged(name, seeds, 5) == damaged(name, seeds, 5)


def test_the_harness_sees_what_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises, writes elsewhere, or takes its time."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()

    def bad(path: Path) -> object:
        if inside.joinpath("raise").exists():
            raise KeyError("no field of this name")
        outside.write_text("x")
        return 0

    monkeypatch.setitem(READERS, "target", type(READERS["target"])(lambda: [b"cpu"], lambda *_: b"cpu", bad, "t.txt"))
    assert "out" in found_by("target", range(1), inside).faults[0]
    inside.joinpath("raise").touch()
    assert "exit 1: KeyError" in found_by("target", range(1), inside).faults[0]
