"""Three answers to "is this layer 2:4?", in the same words in every command and report. Imports no torch."""

from collections.abc import Sequence
from typing import Literal

TwoFourState = Literal["is 2:4", "could be 2:4", "cannot be 2:4"]


def two_four_state(eligible: bool, valid: bool) -> TwoFourState:
    """The state of a layer, of which is known whether it can carry 2:4, and whether its weight holds it."""
    if not eligible:
        return "cannot be 2:4"
    return "is 2:4" if valid else "could be 2:4"


def two_four_counts(states: Sequence[TwoFourState]) -> tuple[int, int, int]:
    """How many layers are 2:4, could be, and cannot be."""
    return states.count("is 2:4"), states.count("could be 2:4"), states.count("cannot be 2:4")


def two_four_words(states: Sequence[TwoFourState]) -> str:
    """The states of all layers of a network in short.

    >>> two_four_words(["is 2:4", "could be 2:4", "cannot be 2:4", "is 2:4"])
    '2:4 in 2 of 4 layers (1 could be, 1 cannot be)'
    """
    are, could, cannot = two_four_counts(states)
    return f"2:4 in {are} of {len(states)} layers ({could} could be, {cannot} cannot be)"
