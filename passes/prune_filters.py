"""Filter pruning: choose units of coupled groups by a criterion and remove them from the whole program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from prunec.passes import importance
from prunec.passes.base import PassResult
from prunec.passes.cost import layer_name
from prunec.passes.coupling import Coupling, Group, Policy, analyse
from prunec.passes.errors import UnsupportedModelError, UsageError
from prunec.passes.program import Program
from prunec.passes.ratios import Rounding, check_globs, exact, group_ratio, matches
from prunec.passes.rewrite import Removed, plan_of, remove
from prunec.passes.roles import expand_roles
from prunec.passes.speedup import MacModel, widths_for_speedup

#: Layers named for each reason of a refusal.
_NAMED = 4


@dataclass(frozen=True)
class PruneFilters:
    """Remove the least important filters with everything that is coupled to them.

    Attributes:
        ratio: fraction of filters removed in every group, or by glob over module paths (the last match counts;
            what none matches keeps all). ``n_pruned = min(ceil(ratio n), n - 1)``, in exact arithmetic.
        speedup: target of dense MACs over pruned MACs, instead of ratios: the nearest feasible at or above it.
        criterion: "l1", "l2" or "random".
        round_to: widths are rounded to the nearest multiple of this, in narrow layers of a halving of it.
        min_channels: filters kept at least in every group.
        residual_streams: whether channels that a sum of several layers shares are pruned too.
        inexact_groups: what to do with groups under operators that mix channels ("prune" or "freeze").
        attention: "head_dim" shortens every head of attention, "heads" removes whole heads, "none" neither.
        grouped: grouped convolutions lose whole "groups", or the same "index" in every group; "auto" takes what
            leaves more choices.
        ignore: globs of layers, or "stem" or "classifier", that keep their own filters; their inputs may shrink.
        freeze: globs of layers, or "stem" or "classifier", whose weights stay untouched.
        seed: of the random criterion.
    """

    ratio: float | Mapping[str, float] | None = None
    speedup: float | None = None
    criterion: str = "l1"
    round_to: int = 1
    min_channels: int = 1
    residual_streams: bool = True
    inexact_groups: Literal["prune", "freeze"] = "prune"
    attention: Literal["head_dim", "heads", "none"] = "head_dim"
    grouped: Literal["auto", "groups", "index"] = "auto"
    ignore: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    seed: int = 0

    name: ClassVar[str] = "prune-filters"

    def __post_init__(self) -> None:
        """Refuse options that contradict each other or make no sense."""
        if (self.ratio is None) == (self.speedup is None):
            raise UsageError("prune-filters needs either a ratio or a speedup.", hint="For example speedup=2.0.")
        if self.speedup is not None and not 1 <= self.speedup < float("inf"):
            raise UsageError(f"speedup {self.speedup} is not a factor of at least 1.", hint="2.0 halves the MACs.")
        for ratio in self.ratio.values() if isinstance(self.ratio, Mapping) else [self.ratio or 0.0]:
            exact(ratio)
        if self.round_to < 1 or self.min_channels < 1:
            raise UsageError("round_to and min_channels must be at least 1.")
        if self.inexact_groups not in ("prune", "freeze"):
            raise UsageError(f"inexact_groups is {self.inexact_groups!r}.", hint='Expected "prune" or "freeze".')
        importance.check_criterion(self.criterion)
        Policy(self.attention, self.grouped)

    def run(self, program: Program) -> PassResult:
        """Prune a program.

        Raises:
            UsageError: a glob matches nothing, ratios of one group conflict, or the speed-up can't be reached.
            UnsupportedModelError: no group can be pruned.
        """
        coupling = analyse(program, Policy(self.attention, self.grouped))
        self._check_globs(program)
        ignore, freeze = (expand_roles(program.graph, globs) for globs in (self.ignore, self.freeze))
        chosen = [i for i, group in enumerate(coupling.groups) if self._takes_part(group, ignore, freeze)]
        macs = program.macs()
        if not chosen or not macs:
            raise _nothing_prunable(coupling)
        kept = self._widths(program, coupling, chosen)
        removed = self._choose(program, coupling, kept)
        plan = plan_of(coupling, removed)
        pruned = remove(program, coupling, plan, removed)
        return PassResult(pruned, bool(plan.kept), self._stats(program, pruned, coupling, kept, macs), plan)

    def _check_globs(self, program: Program) -> None:
        layers = list(dict.fromkeys(layer.name for layer in program.layers()))
        globs = {
            "ignore": expand_roles(program.graph, self.ignore),
            "freeze": expand_roles(program.graph, self.freeze),
        }
        if isinstance(self.ratio, Mapping):
            globs["ratio"] = tuple(self.ratio)
        for option, patterns in globs.items():
            check_globs(patterns, layers, option)

    def _takes_part(self, group: Group, ignore: Sequence[str], freeze: Sequence[str]) -> bool:
        touched = {layer_name(member.parameter) for member in group.members}
        return not (
            matches(group.layers, ignore)
            or matches(touched, freeze)
            or (group.residual and not self.residual_streams)
            or (not group.exact and self.inexact_groups == "freeze")
        )

    def _widths(self, program: Program, coupling: Coupling, chosen: Sequence[int]) -> NDArray[np.int64]:
        """Units kept in every group, int64 (groups,)."""
        rounding = Rounding(self.round_to, self.min_channels)
        if self.speedup is not None:
            model = MacModel.of(program, coupling)
            return widths_for_speedup(model, coupling.groups, chosen, self.speedup, rounding)
        kept = np.array([group.count for group in coupling.groups], dtype=np.int64)
        for position in chosen:
            group = coupling.groups[position]
            by_glob = isinstance(self.ratio, Mapping)
            ratio = group_ratio(group, self.ratio) if by_glob else exact(self.ratio)  # type: ignore[arg-type]
            kept[position] = rounding.kept(group, ratio)
        return kept

    def _choose(self, program: Program, coupling: Coupling, kept: NDArray[np.int64]) -> Removed:
        """Classes of atoms that go: in each group the lowest scores, ties by index."""
        tensors = program.tensors()
        removed = np.zeros(len(coupling.roots), dtype=bool)
        for group, count in zip(coupling.groups, kept.tolist(), strict=True):
            if count == group.count:
                continue
            scores = importance.scores(group, tensors, self.criterion, self.seed)
            gone = np.argsort(scores, kind="stable")[: group.count - count]
            removed[coupling.units(group)[gone]] = True
        return removed

    def _stats(
        self, program: Program, pruned: Program, coupling: Coupling, kept: NDArray[np.int64], dense_macs: int
    ) -> dict[str, Any]:
        macs = pruned.macs()
        return {
            "macs_dense": dense_macs,
            "macs": macs,
            "macs_speedup": dense_macs / macs,
            "parameters_dense": program.parameter_count(),
            "parameters": pruned.parameter_count(),
            "groups": [
                {"name": group.name, "layers": group.layers, "width": group.count, "kept": count}
                for group, count in zip(coupling.groups, kept.tolist(), strict=True)
            ],
            "frozen": [{"name": group.name, "reasons": list(group.reasons)} for group in coupling.frozen],
            "inexact_groups": [
                group.name
                for group, count in zip(coupling.groups, kept.tolist(), strict=True)
                if group.inexact and count < group.count
            ],
            "unknown_operators": coupling.unknown_operators,
        }


def _nothing_prunable(coupling: Coupling) -> UnsupportedModelError:
    """Lists every reason with the layers that it keeps whole."""
    kept_whole: dict[str, list[str]] = {}
    for group in coupling.frozen:
        for reason in group.reasons:
            kept_whole.setdefault(reason, []).append(group.name)
    if coupling.groups:
        by_option = "left out by ignore, freeze, residual_streams=false or inexact_groups=freeze"
        kept_whole[by_option] = [group.name for group in coupling.groups]
    lines = [f"  {reason}: {_some(names)}" for reason, names in kept_whole.items()]
    return UnsupportedModelError(
        "\n".join(["No filters of this network can be pruned:", *(lines or ["  it has no layer with filters"])]),
        hint="`prunec inspect` shows every group; a --pipeline without prune-filters compiles the network unpruned.",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
