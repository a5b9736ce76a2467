"""What the runs say of the paper's claims: a verdict on each, with its numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Literal

from noise import Difference, difference, rank_correlation, student  # type: ignore[import-not-found]
from outcomes import Outcome  # type: ignore[import-not-found]
from published import published_percent  # type: ignore[import-not-found]
from rows import EXTENDED_RATIO, RATIOS, ROWS, SAME_SCHEDULE, SCRATCH, other_names  # type: ignore[import-not-found]

Runs = Mapping[tuple[str, float], Sequence[Outcome]]
MODERATE, HIGH = RATIOS
#: Rows that differ in the learning rate alone: the larger one, the smaller one.
LARGER_RATES = (("P30F90,1e-1", "P30F90,1e-2"), ("P60F60,1e-2", "P60F60,1e-3"), ("P90F30,1e-2", "P90F30,1e-4"))
#: Rows at S4.2 by their learning rates after the pruning.
LARGE_SUFFIXES = ("P15F105,1e-1", "P30F90,1e-2", "P45F75,1e-2")
SMALL_SUFFIXES = ("P75F45,1e-3", "P90F30,1e-4")
SAME_EPOCHS = ("P30F90,1e-1", "P60F60,1e-2", "P90F30,1e-2")
SAME_COST = "P30/kF90,1e-1"
LONGER = (("P60F60,1e-3", "P60F60,1e-3+60", "P60F60,1e-3+180"), ("P90F30,1e-4", "P90F30,1e-4+270"))
#: Rank correlation from which on ranks count as the same.
RANKED = 0.8


@dataclass(frozen=True)
class Check:
    """One comparison that a claim foretells.

    Attributes:
        what: The two rows, in words.
        difference: First less second.
        foretold: Where the first must stand.
    """

    what: str
    difference: Difference
    foretold: Literal["above", "below", "not above", "not below"] = "above"

    @property
    def holds(self) -> bool:
        """Whether it is so by more than the seeds explain; of what is foretold not to be, that it isn't so."""
        if self.foretold.startswith("not "):
            return self.difference.standing != self.foretold.removeprefix("not ")
        return self.difference.standing == self.foretold

    @property
    def holds_in_the_mean(self) -> bool:
        sign = -1 if self.foretold == "below" else 1
        return self.holds or (not self.foretold.startswith("not ") and sign * self.difference.points > 0)


def verdicts(runs: Runs) -> str:
    """Each claim and whether it held, as Markdown; those on further runs where there are any."""
    parts = [
        _verdict("A larger learning rate of the retraining closes the gap", _larger_rates(runs)),
        _verdict(
            f"At S4.2 pruning early beats scratch at ratio {MODERATE:g}",
            [_against_scratch(runs, row, MODERATE) for row in LARGE_SUFFIXES],
        ),
        _verdict("At S4.2 scratch wins only against small learning rates", _small_suffixes(runs)),
        _verdict(
            "At SX-A pruning beats scratch", [_against_scratch(runs, row, r) for r in RATIOS for row in SAME_EPOCHS]
        ),
        _verdict(
            f"At SX-B pruning beats scratch at ratio {MODERATE:g}, and no longer at {HIGH:g}",
            [_against_scratch(runs, SAME_COST, MODERATE), _against_scratch(runs, SAME_COST, HIGH, "not above")],
        ),
        _verdict("The more is pruned, the more a small learning rate costs", _cost_of_small_rates(runs)),
        _as_published(runs),
    ]
    if all((row, EXTENDED_RATIO) in runs for chain in LONGER for row in chain):
        parts.append(_verdict("The gap to scratch shrinks with epochs", _longer(runs)))
    if all((row, EXTENDED_RATIO) in runs for row in other_names()):
        parts.append(_ranking(runs))
    return "\n\n".join(parts) + "\n"


def _verdict(claim: str, checks: Sequence[Check]) -> str:
    held = sum(check.holds for check in checks)
    if held == len(checks):
        word = "held"
    elif all(check.holds_in_the_mean for check in checks):
        word = f"held in the mean, and beyond noise in {held} of {len(checks)} comparisons"
    else:
        word = f"did not hold: {held} of {len(checks)} comparisons as foretold"
    lines = [f"**{claim}: {word}.**"]
    for check in checks:
        doubt = "" if check.holds else f" (foretold: {check.foretold})"
        lines.append(f"- {check.what}: {check.difference} points, {check.difference.standing}{doubt}")
    return "\n".join(lines)


def _larger_rates(runs: Runs) -> list[Check]:
    return [
        Check(f"{larger} over {smaller} at {ratio:g}", difference(runs[larger, ratio], runs[smaller, ratio]))
        for ratio in RATIOS
        for larger, smaller in LARGER_RATES
    ]


def _against_scratch(
    runs: Runs, row: str, ratio: float, foretold: Literal["above", "below", "not above", "not below"] = "above"
) -> Check:
    return Check(f"{row} over scratch at {ratio:g}", difference(runs[row, ratio], runs[SCRATCH, ratio]), foretold)


def _small_suffixes(runs: Runs) -> list[Check]:
    large = [_against_scratch(runs, row, ratio, "not below") for ratio in RATIOS for row in LARGE_SUFFIXES]
    return large + [_against_scratch(runs, row, ratio, "below") for ratio in RATIOS for row in SMALL_SUFFIXES]


def _cost_of_small_rates(runs: Runs) -> list[Check]:
    checks = []
    for larger, smaller in LARGER_RATES[1:]:
        lost = {
            ratio: [100 * (a.top1 - b.top1) for a, b in zip(runs[larger, ratio], runs[smaller, ratio], strict=True)]
            for ratio in RATIOS
        }
        more = student([high - moderate for high, moderate in zip(lost[HIGH], lost[MODERATE], strict=True)])
        checks.append(Check(f"{larger} over {smaller}: at {HIGH:g} more than at {MODERATE:g}", more))
    return checks


def _longer(runs: Runs) -> list[Check]:
    steps = [(longer, shorter) for chain in LONGER for shorter, longer in pairwise(chain)]
    return [
        Check(
            f"{longer} over {shorter} at {EXTENDED_RATIO:g}",
            difference(runs[longer, EXTENDED_RATIO], runs[shorter, EXTENDED_RATIO]),
        )
        for longer, shorter in steps
    ]


def _as_published(runs: Runs) -> str:
    """The order of the rows, and on which side of scratch they are, here and in the paper's table."""
    theirs = published_percent()
    ours = {name: 100 * fmean(outcome.top1 for outcome in runs[name]) for name in theirs}
    correlations = {
        ratio: rank_correlation([ours[row, ratio] for row in ROWS], [theirs[row, ratio] for row in ROWS])
        for ratio in RATIOS
    }
    apart = [(row, ratio) for row, ratio in theirs if theirs[row, ratio] != theirs[SCRATCH, ratio]]
    agreeing = [
        (row, ratio)
        for row, ratio in apart
        if (ours[row, ratio] > ours[SCRATCH, ratio]) == (theirs[row, ratio] > theirs[SCRATCH, ratio])
    ]
    numbers = ", ".join(f"{value:.2f} at {ratio:g}" for ratio, value in correlations.items())
    return (
        f"**The rows rank as in the paper's table: {_held(correlations.values())}.**\n"
        f"- rank correlation of the {len(ROWS)} rows with the paper's: {numbers} ({RANKED:g} asked of each)\n"
        f"- on the paper's side of scratch, in the mean: {len(agreeing)} of {len(apart)} cells"
    )


def _ranking(runs: Runs) -> str:
    """Trainability and final accuracy among the networks that share one schedule."""
    names = [SAME_SCHEDULE, *other_names()]
    networks = [runs[name, EXTENDED_RATIO] for name in names]
    correlations = {
        outcome.seed: rank_correlation(
            [network[number].top1 for network in networks],
            [network[number].trainability_accuracy for network in networks],
        )
        for number, outcome in enumerate(networks[0])
    }
    numbers = ", ".join(f"{value:.2f} in seed {seed}" for seed, value in correlations.items())
    return (
        f"**Trainability accuracy ranks networks within one schedule: {_held(correlations.values())}.**\n"
        f"- rank correlation with the final accuracy among {len(names)} networks at {EXTENDED_RATIO:g}: {numbers} "
        f"({RANKED:g} asked of each)"
    )


def _held(correlations: Iterable[float]) -> str:
    return "held" if min(correlations) >= RANKED else "did not hold in all"
