"""How many units of each group stay: ratios, their exact rounding, and which groups take part."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from math import ceil, gcd

from prunec.passes.coupling import Group
from prunec.passes.errors import UsageError


@dataclass(frozen=True)
class Rounding:
    """How widths are rounded.

    Attributes:
        round_to: kept filters are rounded to the nearest multiple of it, or of the largest halving of it that is at
            most a quarter of the layer's width; never to none.
        min_channels: filters kept at least.
    """

    round_to: int = 1
    min_channels: int = 1

    def step(self, group: Group) -> int:
        """Multiple of units that a group's kept count is rounded to."""
        filters_per_unit = group.members[group.producers[0]].slices_per_unit
        multiple = self.round_to
        while multiple > 1 and 4 * multiple > group.count * filters_per_unit:
            multiple //= 2
        return max(1, multiple // gcd(multiple, filters_per_unit))

    def kept(self, group: Group, ratio: Fraction) -> int:
        """Units that stay at a ratio: ``n - min(ceil(ratio n), n - 1)``, then the nearest step, halves up."""
        if not ratio:
            return group.count
        kept, step = group.count - min(ceil(ratio * group.count), group.count - 1), self.step(group)
        return self.round_up(group, (2 * kept + step) // (2 * step) * step)

    def round_up(self, group: Group, kept: int) -> int:
        """The nearest allowed count at or above ``kept``."""
        step = self.step(group)
        filters_per_unit = group.members[group.producers[0]].slices_per_unit
        least = ceil(Fraction(self.min_channels, filters_per_unit))
        return min(group.count, ceil(Fraction(max(kept, least), step)) * step)


def exact(ratio: float) -> Fraction:
    """A ratio as it is written (0.1 is one tenth).

    Raises:
        UsageError: it is outside [0, 1).
    """
    if not 0 <= ratio < 1:  # also refuses NaN
        raise UsageError(
            f"Pruning ratio {ratio} is outside [0, 1).",
            hint="It is the fraction of filters removed, 0.5 for half.",
        )
    return Fraction(str(ratio))


def check_globs(globs: Iterable[str], layers: Sequence[str], option: str) -> None:
    """Refuse globs that match no layer.

    Raises:
        UsageError: names the first one.
    """
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


def group_ratio(group: Group, ratios: Mapping[str, float]) -> Fraction:
    """Ratio of a group from globs over its layers: the last match of each layer counts.

    Layers that no glob matches have no say; where none has, the group keeps all its filters.

    Raises:
        UsageError: two layers of the group ask for different ratios.
    """
    found: dict[str, Fraction] = {}
    for layer in group.layers:
        matching = [ratio for glob, ratio in ratios.items() if fnmatchcase(layer, glob)]
        if matching:
            found[layer] = exact(matching[-1])
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{layer} {float(ratio):g}" for layer, ratio in found.items())
        raise UsageError(
            f"The layers of one coupled set ask for different ratios: {listed}.",
            hint="Their outputs are added or share channels, so they lose the same filters: give them one ratio.",
        )
    return next(iter(found.values()), Fraction(0))
