"""The last line of every run. Imports nothing: it is printed also where memory has run out."""

from collections.abc import Sequence


def result_line(passed: bool, figures: Sequence[str], command: str, doubts: Sequence[str] = ()) -> str:
    """The last line of a run: ``PASSED|FAILED | <figures against their limits> | but: <doubts> | <command>``.

    Args:
        passed: Whether the exit code is 0.
        figures: Each figure in words, with its limit where there is one.
        command: The command line that was run.
        doubts: What speaks against a result that passed; without any, that part is left out.
    """
    but = f"but: {'; '.join(doubts)} | " if passed and doubts else ""
    return f"{'PASSED' if passed else 'FAILED'} | {', '.join(figures) or 'no figures'} | {but}{command}"
