"""Messages of a running compile; the caller decides how to show them."""

from typing import Protocol


class Progress(Protocol):
    """Receives the stages of a compile as they begin, and steps within them."""

    def stage(self, title: str) -> None:
        """A stage begins."""

    def step(self, done: int, total: int, note: str) -> None:
        """``done`` of ``total`` steps of the current stage are finished."""

    def text(self, title: str, lines: str) -> None:
        """A text that was asked for, such as a program after a step."""

    def note(self, text: str) -> None:
        """A remark that the user should read, as a sentence."""


class Silent:
    """Shows nothing."""

    def stage(self, title: str) -> None:
        """Show nothing."""

    def step(self, done: int, total: int, note: str) -> None:
        """Show nothing."""

    def text(self, title: str, lines: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""
