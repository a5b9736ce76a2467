"""Ranges whose numbers a network's code reads: torch.export takes them for values that aren't known."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

#: torch itself is changed for the while, in one thread at a time.
_LOCK = RLock()


@contextmanager
def known_ranges() -> Iterator[None]:
    """Let ``torch.arange(1, 3).tolist()`` give its numbers while a network is exported, as it does elsewhere."""
    ranges: dict[int, tuple[Tensor, int, list[int]]] = {}

    def arange(*bounds: Any, **options: Any) -> Tensor:
        made = original_arange(*bounds, **options)
        if bounds and all(type(bound) is int for bound in bounds) and not made.is_floating_point():
            # The tensor is held, so that no other gets its identity.
            ranges[id(made)] = made, made._version, list(range(*bounds))
        return made

    def tolist(tensor: FakeTensor) -> Any:
        known = ranges.get(id(tensor))
        is_unwritten = known is not None and known[1] == tensor._version
        return list(known[2]) if known and is_unwritten else original_tolist(tensor)

    with _LOCK:
        original_arange, original_tolist = torch.arange, FakeTensor.tolist
        torch.arange, FakeTensor.tolist = arange, tolist  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.arange, FakeTensor.tolist = original_arange, original_tolist  # type: ignore[method-assign]
