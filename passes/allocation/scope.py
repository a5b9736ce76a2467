"""The groups that are pruned, by the options of `PruneFilters`.

With ``for_module`` no head of attention is shortened: a module's code has its width, or computes scales from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.importance import some
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.cost import layer_name
from prunec.passes.coupling import Coupling, analyse
from prunec.passes.errors import UnsupportedModelError, UsageError
from prunec.passes.groups import Group, marked
from prunec.passes.program import Program
from prunec.passes.ratios import check_globs, matches
from prunec.passes.roles import expand_roles

if TYPE_CHECKING:
    from prunec.passes.prune_filters import PruneFilters


@dataclass(frozen=True, eq=False)
class Scope:
    """The analysis of a program and the groups of it that are pruned.

    Attributes:
        coupling: The analysis.
        positions: Positions of the groups that are pruned; at least one.
    """

    coupling: Coupling
    positions: tuple[int, ...]

    @classmethod
    def of(cls, program: Program, options: "PruneFilters") -> "Scope":
        """The scope of these options.

        Raises:
            UsageError: A glob matches no layer.
            UnsupportedModelError: No group can be pruned.
        """
        coupling = analyse(program, options.policy)
        ignore, freeze = (expand_roles(program.graph, globs) for globs in (options.ignore, options.freeze))
        layers = layer_names(program)
        check_globs(ignore, layers, "ignore")
        check_globs(freeze, layers, "freeze")
        of_a_head = marked(coupling.roots, coupling.ties.head_dims if options.for_module else [])
        positions = tuple(
            position
            for position, group in enumerate(coupling.groups)
            if not matches(group.layers, ignore)
            and not matches({layer_name(member.parameter) for member in group.members}, freeze)
            and (options.residual_streams or not group.residual)
            and (options.inexact_groups == "prune" or group.exact)
            and not of_a_head[coupling.units(group)].any()
        )
        if not positions or not program.macs():
            raise _nothing_prunable(coupling)
        return cls(coupling, positions)

    @property
    def groups(self) -> Sequence[Group]:
        """The groups that are pruned."""
        return [self.coupling.groups[position] for position in self.positions]

    def widths_of(self, sizes: ChosenSizes) -> NDArray[np.int64]:
        """Units kept in every group, int64 (groups,), at sizes; groups that these don't name keep all.

        Raises:
            UsageError: There is no such group, or it can't keep so many units.
        """
        counts = {group.name: group.count for group in self.coupling.groups}
        for name, kept in sizes.widths.items():
            if not 1 <= kept <= counts.get(name, 0):
                raise UsageError(
                    f"The group {name} is to keep {kept} units, and has {counts.get(name, 0)} in this network."
                )
        return np.array([sizes.widths.get(name, count) for name, count in counts.items()], dtype=np.int64)


def layer_names(program: Program) -> list[str]:
    """Paths of the layers, each once."""
    return list(dict.fromkeys(layer.name for layer in program.layers()))


def _nothing_prunable(coupling: Coupling) -> UnsupportedModelError:
    """The error that lists every reason with the layers that it keeps whole."""
    kept_whole: dict[str, list[str]] = {}
    for group in coupling.frozen:
        for reason in group.reasons:
            kept_whole.setdefault(reason, []).append(group.name)
    if coupling.groups:
        by_option = "left out by ignore, freeze, residual_streams=false, inexact_groups=freeze or for_module"
        kept_whole[by_option] = [group.name for group in coupling.groups]
    lines = [f"  {reason}: {some(names)}" for reason, names in kept_whole.items()]
    return UnsupportedModelError(
        "\n".join(["No filters of this network can be pruned:", *(lines or ["  it has no layer with filters"])]),
        hint="`prunec inspect` shows every group; a --pipeline without prune-filters compiles the network unpruned.",
    )
