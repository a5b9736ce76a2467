"""The number of units that stay in each group: ratios, their exact rounding, and globs over layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from math import ceil, gcd
from typing import TYPE_CHECKING

from prunec.passes.errors import UsageError

if TYPE_CHECKING:
    from prunec.passes.groups import Group


@dataclass(frozen=True)
class Rounding:
    """The rounding of widths.

    Attributes:
        round_to: Number whose nearest multiple kept filters are rounded to, and never to none; in a layer less than
            four times as wide as it, the largest halving of it that is at most a quarter of the width counts.
        min_channels: Number of filters that are kept at least.
    """

    round_to: int = 1
    min_channels: int = 1

    def step(self, group: "Group") -> int:
        """Multiple of units that a group's kept count is rounded to."""
        filters_per_unit = group.members[group.producers[0]].slices_per_unit
        multiple = multiple_within(self.round_to, group.count * filters_per_unit)
        return max(1, multiple // gcd(multiple, filters_per_unit))

    def kept(self, group: "Group", ratio: Fraction) -> int:
        """Units that stay at a ratio: ``n - min(ceil(ratio n), n - 1)``, then the nearest step, halves up."""
        if not ratio:
            return group.count
        return self.nearest(group, group.count - min(ceil(ratio * group.count), group.count - 1))

    def nearest(self, group: "Group", kept: int) -> int:
        """The nearest allowed count, halves up."""
        step = self.step(group)
        return self.round_up(group, (2 * kept + step) // (2 * step) * step)

    def round_up(self, group: "Group", kept: int) -> int:
        """The nearest allowed count at or above ``kept``."""
        step = self.step(group)
        filters_per_unit = group.members[group.producers[0]].slices_per_unit
        least = ceil(Fraction(self.min_channels, filters_per_unit))
        return min(group.count, ceil(Fraction(max(kept, least), step)) * step)


def multiple_within(round_to: int, size: int) -> int:
    """What sizes of at most ``size`` are rounded to: the largest halving of ``round_to`` that is a quarter at most."""
    while round_to > 1 and 4 * round_to > size:
        round_to //= 2
    return round_to


def exact(ratio: float) -> Fraction:
    """The ratio that was written, as an exact fraction (0.1 is one tenth).

    Raises:
        UsageError: The ratio is outside [0, 1).
    """
    if not 0 <= ratio < 1:  # also refuses NaN
        raise UsageError(
            f"Pruning ratio {ratio} is outside [0, 1).", hint="It is the fraction of filters removed, 0.5 for half."
        )
    return Fraction(str(ratio))


def check_globs(globs: Iterable[str], layers: Sequence[str], option: str) -> None:
    """Refuse globs that match no layer with a `UsageError` that names the first of them."""
    for glob in globs:
        if not any(fnmatchcase(layer, glob) for layer in layers):
            raise UsageError(
                f"{option}: no layer matches {glob!r}.",
                hint=f"Layers are named by their module path: {', '.join(layers[:4])}, ...; "
                "`prunec inspect` lists them all.",
            )


def matches(names: Iterable[str], globs: Sequence[str]) -> bool:
    """Whether any name matches any glob."""
    return any(fnmatchcase(name, glob) for name in names for glob in globs)


def group_ratio(group: "Group", ratios: Mapping[str, float]) -> Fraction:
    """Ratio of a group from globs over its layers: the last match of each layer counts.

    Layers that no glob matches have no say; where none has, the group keeps all its filters.

    Raises:
        UsageError: Two layers of the group ask for different ratios.
    """
    matching = {layer: [r for glob, r in ratios.items() if fnmatchcase(layer, glob)] for layer in group.layers}
    ratio_of = {layer: exact(candidates[-1]) for layer, candidates in matching.items() if candidates}
    if len(set(ratio_of.values())) > 1:
        listed = ", ".join(f"{layer} {float(ratio):g}" for layer, ratio in ratio_of.items())
        raise UsageError(
            f"The layers of one coupled set ask for different ratios: {listed}.",
            hint="Their outputs are added or share channels, so they lose the same filters: give them one ratio.",
        )
    return next(iter(ratio_of.values()), Fraction(0))
