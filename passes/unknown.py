"""A value that stands for what is not known."""

from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Unknown:
    """Stands in place of a value that nobody knows.

    Attributes:
        reason: The reason why the value is not known, as a sentence that users read.
    """

    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError("a value that is not known needs a reason")


def known(value: Value | Unknown) -> Value | None:
    """The value, or None where it is not known."""
    return None if isinstance(value, Unknown) else value


def reason_of(value: object) -> str:
    """The reason why a value is not known; empty where it is known."""
    return value.reason if isinstance(value, Unknown) else ""
