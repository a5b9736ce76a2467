"""Why a batch can't vary, or how far: the conditions on it that torch.export met while it traced a network."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import FrameSummary, walk_stack, walk_tb
from typing import Any

import sympy  # type: ignore[import-untyped]
from torch.fx.experimental import symbolic_shapes

from prunec.passes.errors import first_line
from prunec.passes.user_lines import described, is_users, line_of_error

#: What torch.export has for a size without an upper bound is beyond this.
_UNBOUNDED = 2**62


@dataclass(frozen=True)
class BatchLimits:
    """What an export that failed with a batch that may vary tells of the batch.

    Attributes:
        sizes: The least and the most samples (None: any number) where the batch may vary within bounds; None where
            it can't vary.
        why: What sets the bounds, or fixes the batch, in words, with the line of the network's code where it is known.
    """

    sizes: tuple[int, int | None] | None
    why: str


@contextmanager
def users_lines() -> Iterator[None]:
    """Let torch.export note, for each condition on a size, the line of the network's code and not of torch's."""
    original = symbolic_shapes.uninteresting_files
    symbolic_shapes.uninteresting_files = _NotUsers  # type: ignore[assignment]
    try:
        yield
    finally:
        symbolic_shapes.uninteresting_files = original


class _NotUsers:
    """The set of files that belong to torch, Python or prunec."""

    def __contains__(self, file: str) -> bool:
        return not is_users(file)


def batch_limits(error: BaseException) -> BatchLimits:
    """The limits that an error of ``torch.export``, traced with one symbol for the batch, tells of."""
    environment = next((e for f, _ in walk_tb(error.__traceback__) if (e := _environment(f.f_locals))), None)
    if environment is None:
        return BatchLimits(None, _in_words(error))
    ranges = [environment.var_to_range[symbol] for symbol in environment.backed_var_to_val]
    least = max((int(r.lower) for r in ranges), default=0)
    most = min((int(r.upper) for r in ranges if r.upper < _UNBOUNDED), default=None)
    size = next((int(value) for value in environment.backed_var_to_val.values()), 1)
    other = size - 1 if most == size else size + 1
    if (refused := _breaks(environment.guards, other)) is not None:
        return BatchLimits(None, _where(refused) or f"{refused.expr} has to hold in it")
    bounding = _breaks(environment.guards, least - 1 if most is None else most + 1)
    if other < least or (least <= 2 and most is None):
        conditions = environment.guards if bounding is None else [bounding]
        places = () if line_of_error(error) else filter(None, map(_where, conditions))
        return BatchLimits(None, next(iter(places), "") or _in_words(error))
    return BatchLimits((least, most), (bounding and _where(bounding)) or "a condition that it needs")


def _breaks(guards: Iterable[Any], samples: int) -> Any:
    """The first condition that doesn't hold with so many samples, None where there is none."""
    return next((guard for guard in guards if _holds(guard.expr, samples) is False), None)


def _environment(variables: dict[str, Any]) -> Any:
    """The record of sizes and conditions among the variables of a frame of torch.export."""
    return getattr(variables.get("fake_mode"), "shape_env", None)


def _holds(condition: Any, samples: int) -> bool | None:
    """Whether a condition on sizes holds at a batch of so many samples; None where that isn't known."""
    value = condition.xreplace({symbol: sympy.Integer(samples) for symbol in condition.free_symbols})
    return {sympy.true: True, sympy.false: False}.get(value)


def _where(guard: Any) -> str:
    """The line of the network's code that set a condition, "" where it isn't known."""
    place = guard.sloc.framework_loc
    if not isinstance(place, FrameSummary) or (place.filename, place.lineno) in _callers():
        return ""
    return described(place.filename, place.lineno or 0, place.name) or ""


def _callers() -> set[tuple[str, int | None]]:
    """The lines of code that are being run, all of them outside of the network."""
    return {(frame.f_code.co_filename, number) for frame, number in walk_stack(None)}


def _in_words(error: BaseException) -> str:
    line = line_of_error(error)
    return f"{first_line(error).rstrip('.')}{f', at {line[0]}' if line else ''}"
