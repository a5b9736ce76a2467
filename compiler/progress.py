"""What a compile tells while it runs; how that is shown is the caller's affair."""

from typing import Protocol


class Progress(Protocol):
    """Receives the stages of a compile as they begin, and steps within them."""

    def stage(self, title: str) -> None:
        """A stage begins."""
        ...

    def step(self, done: int, total: int, note: str) -> None:
        """``done`` of ``total`` steps of the current stage are finished."""
        ...


class Silent:
    """Shows nothing."""

    def stage(self, title: str) -> None:
        """Nothing."""

    def step(self, done: int, total: int, note: str) -> None:
        """Nothing."""
