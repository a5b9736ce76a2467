"""Checks of a bundle: a question that is asked, and its answer."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from prunec.passes.errors import InputError, PrunecError

CheckVerdict = Literal["passed", "failed", "skipped"]
#: Problems that a message names.
NAMED = 3


@dataclass(frozen=True)
class Check:
    """One question that verify asks; `exit_code` is 0 unless it failed."""

    name: str
    verdict: CheckVerdict
    detail: str
    exit_code: int = 0


@dataclass(frozen=True)
class Verification:
    """All checks of one bundle."""

    bundle: str
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        """0, or the lowest code of the checks that failed."""
        return min((check.exit_code for check in self.checks if check.verdict == "failed"), default=0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "exit_code": self.exit_code}


class NotCheckedError(Exception):
    """A question that can't be asked of this bundle, or not on this machine; the message says why."""


class JudgedError(PrunecError):
    """A failure with the exit code of what was judged."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def ask(name: str, question: Callable[[], str]) -> Check:
    """Passed with what the question returns, failed or skipped with what it raises."""
    try:
        return Check(name, "passed", question())
    except NotCheckedError as error:
        return skipped(name, str(error))
    except PrunecError as error:
        return Check(name, "failed", error.message, error.exit_code)


def skipped(name: str, why: str) -> Check:
    """A question that isn't asked, for a reason."""
    return Check(name, "skipped", why)


def refuse(what: str, problems: Sequence[str]) -> None:
    """Raise `InputError` where there are problems with something; it names the first of them."""
    if problems:
        more = f", and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise InputError(f"{what}: {'; '.join(problems[:NAMED])}{more}")
