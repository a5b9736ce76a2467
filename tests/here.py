"""Native code in this process instead of a child, for tests with fakes that a child wouldn't have."""

from collections.abc import Callable
from typing import Any

import pytest

from prunec.runtime import children


class Here:
    """Stands for a `prunec.runtime.children.Child`."""

    def is_alive(self) -> bool:
        return True

    def call(self, stage: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


def native_code_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that would run in a child run in this process."""
    monkeypatch.setattr(children, "child", Here)
