"""The policy of coupling analysis where more than one answer is right."""

from dataclasses import dataclass
from typing import Literal, get_args

from prunec.passes.errors import UsageError, did_you_mean

#: Pruning shortens every head of attention ("head_dim"), removes whole heads, or does neither.
Attention = Literal["head_dim", "heads", "none"]
#: Grouped convolutions lose whole groups, the same index in every group, or ("auto") whichever leaves more choices.
Grouped = Literal["auto", "groups", "index"]
ATTENTION: tuple[Attention, ...] = get_args(Attention)
GROUPED: tuple[Grouped, ...] = get_args(Grouped)


@dataclass(frozen=True)
class Policy:
    """The choice of what is pruned where more than one answer is right."""

    attention: Attention = "head_dim"
    grouped: Grouped = "auto"

    def __post_init__(self) -> None:
        for option, value, known in (("attention", self.attention, ATTENTION), ("grouped", self.grouped, GROUPED)):
            if value not in known:
                raise UsageError(f"{option} is {value!r}.", hint=did_you_mean(str(value), known))
