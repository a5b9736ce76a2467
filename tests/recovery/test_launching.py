"""Processes that end without a word have failed, and those that would wait for them are ended."""

from pathlib import Path

from tests.recovery.launching import run_together


def test_a_process_that_ends_without_a_word_is_told(tmp_path: Path) -> None:
    assert run_together(2, "tests.recovery.failing", [], tmp_path) == "exit 3: "
