"""Processes that end without a word have failed, and those that would wait for them are ended."""

from tests.recovery.launching import run_together


def test_a_process_that_ends_without_a_word_is_told() -> None:
    assert "process 1 terminated with exit code 3" in run_together(2, "tests.recovery.failing", [])
