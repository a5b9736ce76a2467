"""Sizes that were chosen before, as plain values. Importing this module imports neither torch nor NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ChosenSizes:
    """The size that a network was pruned to.

    Attributes:
        widths: Units kept in groups, by their names; groups that aren't named keep all.
        branches: Residual branches that are removed, each by its last layer, in the order of their removal.
        ranks: Ranks of weights that are decomposed then, by their names.
    """

    widths: Mapping[str, int]
    branches: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
