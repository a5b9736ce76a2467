"""The rule by which masks are made of scores: the pattern, how much, and over which weights that is counted."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from prunec.passes.errors import UsageError, did_you_mean
from prunec.passes.patterns.pattern import Pattern
from prunec.passes.ratios import exact

#: Each layer loses the asked share of its weights, or those of all layers are ranked together.
MaskAllocation = Literal["layer", "global"]


@dataclass(frozen=True)
class MaskRule:
    """How masks follow from scores.

    Attributes:
        pattern: The units that are masked.
        ratio: Share of the weights that is masked; it is what N:M gives by itself.
        ratio_of_rest: The share of the weights left that is masked instead, as in iterative pruning.
        until: Share of all weights that ``ratio_of_rest`` masks at most.
        allocation: Whether shares are those of each layer, or of all layers together by one threshold.

    Raises:
        UsageError: A share is out of its range, is missing, or there are two; or N:M is given any of it.
    """

    pattern: Pattern
    ratio: float | None = None
    ratio_of_rest: float | None = None
    until: float | None = None
    allocation: MaskAllocation = "layer"

    def __post_init__(self) -> None:
        if self.allocation not in (known := get_args(MaskAllocation)):
            raise UsageError(
                f"sparsify: allocation = {self.allocation!r} is unknown.",
                hint=did_you_mean(str(self.allocation), known),
            )
        shares = {name: getattr(self, name) for name in ("ratio", "ratio_of_rest", "until")}
        given = {name: share for name, share in shares.items() if share is not None}
        for share in given.values():
            exact(share)
        if self.pattern.n_of_m is not None:
            self._check_n_of_m(given)
        elif ("ratio" in given) == ("ratio_of_rest" in given):
            raise UsageError(
                f"sparsify: the pattern {self.pattern.text} needs a share of the weights, "
                f"and {'two are given' if 'ratio' in given else 'none is given'}.",
                hint="Give ratio=0.9 for that share of all weights, or ratio_of_rest=0.2 for one of those left.",
            )
        elif "until" in given and "ratio" in given:
            raise UsageError("sparsify: until is for ratio_of_rest.", hint="ratio is a share of all weights already.")

    def _check_n_of_m(self, given: dict[str, float]) -> None:
        if given or self.allocation != "layer":
            name = next(iter(given), "allocation")
            raise UsageError(
                f"sparsify: {name} is given, and {self.pattern.text} says for every layer how much is masked.",
                hint=f"Leave out {name}, or use pattern=elements.",
            )

    def wanted(self, weights: int, masked: int) -> Fraction:
        """How many of some weights shall be masked, in exact arithmetic; whole units are taken until it is reached.

        Args:
            weights: Number of weights.
            masked: Number of those that are masked already, which stay so.
        """
        if self.pattern.n_of_m is not None:
            kept, group = self.pattern.n_of_m
            return Fraction(group - kept, group) * weights
        if self.ratio is not None:
            return exact(self.ratio) * weights
        assert self.ratio_of_rest is not None, "checked when the rule was made"
        more = masked + exact(self.ratio_of_rest) * (weights - masked)
        return more if self.until is None else min(more, exact(self.until) * weights)
