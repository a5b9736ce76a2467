"""Learning rates over a training as exact pieces: what a report records of a training, and what runs are compared by.

A sequence of pieces covers a training from epoch 0 on without gaps. Where pieces meet, the later one holds. The
functions here return sequences in canonical form: equal constants that adjoin are one piece, and what a warm-up makes
of a constant is linear.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, TypeAlias

CurveShape = Literal["constant", "linear", "cosine"]
#: Epochs, and shares of a rate, below which rates are the same.
RATE_TOLERANCE = 1e-9
#: What rounding does to a curve where it comes near 0, as a share of its highest rate.
_ROUNDING = 1e-12
#: Points within an interval, or a piece, at which rates are looked at.
_POINTS = 16
_WHOLE = (0.0, 1.0)
_UNCHANGED = (1.0, 1.0)


@dataclass(frozen=True)
class RatePiece:
    """The learning rate over some epochs, as a curve from ``first`` at phase 0 to ``last`` at phase 1.

    A training reads it before every step: at epoch ``e + k / n`` for step ``k`` of the ``n`` steps of epoch ``e``, both
    counted from 0. Gradients of several parts (``accumulate``) make one step.

    Attributes:
        start: The point in time at which it begins, in epochs since the start of the training.
        end: The point in time at which it ends.
        shape: "constant", "linear", or half a "cosine".
        first: The curve's learning rate at phase 0.
        last: The curve's learning rate at phase 1.
        phases: The part of the curve that lies between start and end, such as (0.5, 1.0) for the second half.
        factors: What the curve is multiplied with at start and at end, linear in between, as by a warm-up.

    Raises:
        ValueError: A value isn't finite, a rate or factor is negative, the piece ends before it starts, the phases
            fall or leave 0 to 1, or a constant changes.
    """

    # A report, or a card, that names any other key is refused by pydantic.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    start: float
    end: float
    shape: CurveShape
    first: float
    last: float
    phases: tuple[float, float] = _WHOLE
    factors: tuple[float, float] = _UNCHANGED

    def __post_init__(self) -> None:
        for name in ("start", "end", "first", "last"):  # whole numbers would be written otherwise than they are read
            object.__setattr__(self, name, float(getattr(self, name)))
        rules = {
            "expected finite numbers": all(
                map(math.isfinite, (self.start, self.end, self.first, self.last, *self.phases, *self.factors))
            ),
            "expected 0 <= start < end": 0 <= self.start < self.end,
            "expected learning rates of 0 or more": min(self.first, self.last) >= 0,
            "expected factors of 0 or more": min(self.factors) >= 0,
            "expected phases that don't fall, within 0 and 1": 0 <= self.phases[0] <= self.phases[1] <= 1,
            "expected one rate for a constant": self.shape != "constant" or self.first == self.last,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"{rule}, got {self}")

    def rate(self, epoch: float) -> float:
        """Learning rate at a time, in epochs since the start of the training; beyond its ends that at the end."""
        progress = min(max((epoch - self.start) / (self.end - self.start), 0.0), 1.0)
        return self._curve(_between(self.phases, progress)) * _between(self.factors, progress)

    def part(self, start: float, end: float) -> "RatePiece":
        """The piece between two points in time that lie within it."""
        if (start, end) == (self.start, self.end):
            return self
        progress = [(time - self.start) / (self.end - self.start) for time in (start, end)]
        phases, factors = (
            (_between(pair, progress[0]), _between(pair, progress[1])) for pair in (self.phases, self.factors)
        )
        return replace(self, start=start, end=end, phases=phases, factors=factors)

    def _curve(self, phase: float) -> float:
        if self.shape == "cosine":
            return self.last + (self.first - self.last) * (1 + math.cos(math.pi * phase)) / 2
        return _between((self.first, self.last), phase)


#: Learning rates over a whole training.
Pieces: TypeAlias = tuple[RatePiece, ...]


def constant(start: float, end: float, rate: float) -> RatePiece:
    """One learning rate between two points in time."""
    return RatePiece(start, end, "constant", rate, rate)


def rates_at(pieces: Sequence[RatePiece], epoch: float) -> float:
    """Learning rate at a time, in epochs; beyond the end that at the end. There must be a piece."""
    return _piece_at(pieces, epoch).rate(epoch)


def highest(pieces: Sequence[RatePiece]) -> float:
    """The highest learning rate of a training, exact but for a curve's that falls while it warms up."""
    return max(p.rate(p.start + (p.end - p.start) * point / _POINTS) for p in pieces for point in range(_POINTS + 1))


def checked(pieces: Pieces) -> Pieces:
    """The same pieces.

    Raises:
        ValueError: They don't follow each other from epoch 0 on.
    """
    ends = [0.0, *(piece.end for piece in pieces)]
    for end, piece in zip(ends, pieces, strict=False):
        if piece.start != end:
            raise ValueError(f"expected learning rates from epoch {end:.12g} on, got a piece from {piece.start:.12g}")
    return pieces


def canonical(pieces: Iterable[RatePiece]) -> Pieces:
    """The same learning rates in as few and as simple pieces as can be told exactly."""
    merged: list[RatePiece] = []
    for piece in map(_simplest, pieces):
        if merged and piece.shape == merged[-1].shape == "constant" and piece.first == merged[-1].first:
            merged[-1] = replace(merged[-1], end=piece.end)
        else:
            merged.append(piece)
    return tuple(merged)


def cut(pieces: Sequence[RatePiece], start: float, end: float) -> Pieces:
    """The learning rates between two points in time, at those points in time; past the end the last rate stays."""
    if start >= end:
        return ()
    parts = [p.part(max(p.start, start), min(p.end, end)) for p in pieces if p.start < end and start < p.end]
    reached = max(start, pieces[-1].end)
    if reached < end:
        parts.append(constant(reached, end, pieces[-1].rate(reached)))
    return canonical(parts)


def shifted(pieces: Iterable[RatePiece], by: float) -> Pieces:
    """The same learning rates so many epochs later, or earlier, but not before epoch 0."""
    return tuple(replace(piece, start=piece.start + by, end=piece.end + by) for piece in pieces)


def rest(pieces: Sequence[RatePiece], start: float, epochs: float) -> Pieces:
    """The learning rates from a point in time on as those of a training of its own.

    Args:
        pieces: The whole training's.
        start: The point in time.
        epochs: How long it goes on; subtraction gives that too, but rounds.
    """
    taken = cut(pieces, start, pieces[-1].end)
    times = [0.0, *(min(piece.end - start, epochs) for piece in taken[:-1]), epochs]
    return canonical(
        replace(piece, start=begin, end=end)
        for piece, (begin, end) in zip(taken, pairwise(times), strict=True)
        if begin < end
    )


def joined(*sequences: Sequence[RatePiece]) -> Pieces:
    """Learning rates of several trainings, one after the other."""
    appended: list[RatePiece] = []
    for pieces in sequences:
        appended.extend(shifted(pieces, appended[-1].end if appended else 0.0))
    return canonical(appended)


def warmed_up(pieces: Sequence[RatePiece], epochs: float) -> Pieces:
    """Learning rates that are reached over some epochs, linearly from 0.

    Raises:
        ValueError: They are warmed up already, by a curve that is no longer one of the three shapes.
    """
    end = pieces[-1].end if pieces else 0.0
    if epochs == 0 or end == 0:
        return canonical(pieces)
    early = cut(pieces, 0.0, min(epochs, end))
    if any(piece.factors != _UNCHANGED for piece in early):
        raise ValueError("learning rates that rise by a warm-up can't be warmed up again")
    ramps = [replace(piece, factors=(piece.start / epochs, piece.end / epochs)) for piece in early]
    return canonical([*ramps, *cut(pieces, epochs, end)])


def same_rates(a: Sequence[RatePiece], b: Sequence[RatePiece], tolerance: float = RATE_TOLERANCE) -> bool:
    """Whether two trainings have the same length, and the same learning rate at every time.

    Args:
        a: Learning rates of the one, from epoch 0 on.
        b: Learning rates of the other.
        tolerance: Epochs by which lengths and the times of changes may differ. Rates may differ by this share of the
            larger one, or by this much where they are above 1.
    """
    if not a or not b or a == b:
        return len(a) == len(b)
    if abs(a[-1].end - b[-1].end) > tolerance:
        return False
    for start, end in pairwise(_spaced(sorted({0.0, *(piece.end for piece in (*a, *b))}), tolerance)):
        ours, theirs = (_piece_at(pieces, (start + end) / 2) for pieces in (a, b))
        slack = _ROUNDING * max(ours.first, ours.last, theirs.first, theirs.last)
        # Both ends are those of the interval, so that the rates on both sides of every change are compared.
        for point in range(_POINTS + 2):
            time = start + (end - start) * point / (_POINTS + 1)
            x, y = ours.rate(time), theirs.rate(time)
            if abs(x - y) > max(tolerance * min(1.0, max(x, y)), slack):
                return False
    return True


def words(pieces: Sequence[RatePiece]) -> str:
    """The exact learning rates in words: "0.1 from epoch 0, 0.01 from 30", "cosine 0.05 to 0 over epochs 0 to 30"."""
    shapes = ["", *(piece.shape for piece in pieces)]
    said = (_said(p, "" if before == "constant" else "epoch ") for before, p in zip(shapes, pieces, strict=False))
    return ", ".join(said) or "no training"


def _said(piece: RatePiece, unit: str) -> str:
    if piece.shape == "constant":
        return f"{piece.first:.12g} from {unit}{piece.start:.12g}"
    text = f"{piece.shape} {piece.first:.12g} to {piece.last:.12g} over epochs {piece.start:.12g} to {piece.end:.12g}"
    if piece.phases != _WHOLE:
        text += " (its part from {:.12g} to {:.12g})".format(*piece.phases)
    return text if piece.factors == _UNCHANGED else text + " times {:.12g} to {:.12g}".format(*piece.factors)


def _between(pair: tuple[float, float], progress: float) -> float:
    return pair[0] + (pair[1] - pair[0]) * progress if progress < 1 else pair[1]


def _piece_at(pieces: Sequence[RatePiece], epoch: float) -> RatePiece:
    return pieces[min(bisect_right(pieces, epoch, key=lambda piece: piece.end), len(pieces) - 1)]


def _simplest(piece: RatePiece) -> RatePiece:
    """The same rates with as few parameters as they need."""
    if piece.factors[0] == piece.factors[1] != 1:
        first, last = piece.first * piece.factors[0], piece.last * piece.factors[0]
        return _simplest(replace(piece, first=first, last=last, factors=_UNCHANGED))
    if piece.phases[0] == piece.phases[1]:
        value = replace(piece, factors=_UNCHANGED).rate(piece.end)
        return _simplest(replace(piece, shape="constant", first=value, last=value, phases=_WHOLE))
    if piece.first == piece.last and piece.factors != _UNCHANGED:
        first, last = (piece.first * factor for factor in piece.factors)
        return RatePiece(piece.start, piece.end, "linear", first, last)
    if piece.first == piece.last:
        return constant(piece.start, piece.end, piece.first)
    if piece.shape == "linear" and piece.factors == _UNCHANGED and piece.phases != _WHOLE:
        first, last = (_between((piece.first, piece.last), phase) for phase in piece.phases)
        return _simplest(RatePiece(piece.start, piece.end, "linear", first, last))
    return piece


def _spaced(times: list[float], least: float) -> list[float]:
    """The points in time that are further apart than so many epochs."""
    kept = times[:1]
    for time in times[1:]:
        if time - kept[-1] > least:
            kept.append(time)
    return kept
