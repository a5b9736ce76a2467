"""Filter pruning: choose units of coupled groups by a criterion and remove them from the whole program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.allocation.allocator import Allocator
from prunec.passes.allocation.depth import choose_depth
from prunec.passes.allocation.importance import GroupScores, as_array, scores_of
from prunec.passes.allocation.joint import jointly
from prunec.passes.allocation.scope import Scope, layer_names
from prunec.passes.allocation.sizes import ChosenSizes
from prunec.passes.base import Aim, PassResult
from prunec.passes.branch_removal import removal
from prunec.passes.costs.cost_model import CostModel
from prunec.passes.coupling import Coupling, Group
from prunec.passes.criteria.catalogue import blame, unit_criterion
from prunec.passes.criteria.evidence import Evidence, evidence_for
from prunec.passes.criteria.protocol import CompensatesUnits, ScoresUnits, SelectsUnits
from prunec.passes.decomposition import low_rank_layers
from prunec.passes.errors import UsageError
from prunec.passes.factorizing import factorized, with_ranks
from prunec.passes.plan import RemovedBranch
from prunec.passes.program import Program
from prunec.passes.ratios import Rounding, check_globs, exact, group_ratio
from prunec.passes.rewrite import plan_of, remove
from prunec.passes.tensors import with_values

if TYPE_CHECKING:
    from prunec.passes.prune_filters import PruneFilters

#: Indices of the units that stay, int64, ascending.
Kept = NDArray[np.int64]


@dataclass(frozen=True)
class Ratios:
    """The fraction of units that every group loses, or fractions by glob."""

    ratio: float | Mapping[str, float]
    rounding: Rounding

    def widths(self, scope: Scope) -> NDArray[np.int64]:
        """Units kept in every group, int64 (groups,); all where a group isn't pruned."""
        kept = np.array([group.count for group in scope.coupling.groups], dtype=np.int64)
        for position, group in zip(scope.positions, scope.groups, strict=True):
            kept[position] = self.rounding.kept(group, self._ratio(group))
        return kept

    def aim(self, groups: Sequence[Group], widths: NDArray[np.int64]) -> Aim:
        """What was asked of these groups, before widths are rounded, and what became of it.

        Ratios ask for units of groups, which are filters with all that is coupled to them; the options that round
        widths, or keep a number of filters, are named where they keep more.
        """
        ratios = [self._ratio(group) for group in groups]

        def removed(rounding: Rounding) -> int:
            return sum(group.count - rounding.kept(group, r) for group, r in zip(groups, ratios, strict=True))

        asked, got = removed(Rounding()), sum(group.count for group in groups) - int(widths.sum())
        if not asked and isinstance(self.ratio, Mapping) and any(self.ratio.values()):
            return Aim("filters removed", 1, 0, "the layers that the ratios name can't be pruned")
        alone = {"round_to": Rounding(self.rounding.round_to), "min_channels": Rounding(1, self.rounding.min_channels)}
        keeping = [f"{name}={getattr(rounding, name)}" for name, rounding in alone.items() if removed(rounding) < asked]
        reason = f"{' and '.join(keeping)} kept the others" if keeping and got < asked else ""
        return Aim("filters removed", asked, got, reason)

    def _ratio(self, group: Group) -> Fraction:
        return group_ratio(group, self.ratio) if isinstance(self.ratio, Mapping) else exact(self.ratio)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The widths that are pruned to, int64 (groups,), the ranks, and what is known of how these were chosen."""

    scope: Scope
    widths: NDArray[np.int64]
    aim: Aim
    scores: GroupScores
    told: dict[str, Any]
    program: Program
    branches: tuple[RemovedBranch, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)


def _by_ratio(program: Program, ratio: float | Mapping[str, float], options: "PruneFilters") -> _Chosen:
    scope, ratios = Scope.of(program, options), Ratios(ratio, options.rounding)
    if isinstance(ratio, Mapping):
        check_globs(ratio, layer_names(program), "ratio")
    widths = ratios.widths(scope)
    return _Chosen(scope, widths, ratios.aim(scope.groups, widths[list(scope.positions)]), {}, {}, program)


def _by_goals(
    program: Program, options: "PruneFilters", evidence: Evidence, costs: CostModel | None, sizes: ChosenSizes | None
) -> _Chosen:
    allocator = Allocator.of(program, options, costs, evidence)
    fixed = None if sizes is None else allocator.scope.widths_of(sizes)
    allocated = allocator.allocate(allocator.goals_of(options), options.allocation, fixed)
    told = {"allocation": allocated.told()}
    return _Chosen(allocator.scope, allocated.widths, allocated.aim, allocator.scores, told, program)


def _jointly(program: Program, options: "PruneFilters", evidence: Evidence) -> _Chosen:
    allocator = Allocator.of(program, options, None, evidence)
    allocated, state = jointly(program, options, allocator)
    scores = {position: kept.astype(float) for position, kept in enumerate(state.kept)}
    told = {"allocation": allocated.told()}
    return _Chosen(allocator.scope, allocated.widths, allocated.aim, scores, told, program, ranks=state.ranks)


def _by_depth(program: Program, options: "PruneFilters", costs: CostModel | None, sizes: ChosenSizes | None) -> _Chosen:
    shallower = choose_depth(program, options, costs, sizes)
    allocator, allocated = shallower.allocator, shallower.allocated
    assert allocated is not None, "goals that nothing meets are refused"
    told = {"allocation": allocated.told(), "branches": [branch.name for branch in shallower.removed]}
    return _Chosen(
        allocator.scope, allocated.widths, allocated.aim, allocator.scores, told, shallower.program, shallower.removed
    )


def _by_sizes(program: Program, options: "PruneFilters", sizes: ChosenSizes) -> _Chosen:
    shallower, removed = removal(program, sizes.branches)
    scope = Scope.of(shallower, options)
    kept = scope.widths_of(sizes)
    gone = sum(group.count for group in scope.coupling.groups) - int(kept.sum())
    return _Chosen(scope, kept, Aim("filters removed", gone, gone), {}, {}, shallower, removed, sizes.ranks)


def prune_filters(
    program: Program,
    options: "PruneFilters",
    evidence: Evidence | None,
    costs: CostModel | None,
    sizes: ChosenSizes | None = None,
) -> PassResult:
    """Do what `PruneFilters.run` does, with the errors that it raises."""
    criterion = unit_criterion(options.criterion, options.name)
    evidence = evidence_for(criterion, program, evidence, options.seed or 0)
    chosen = _chosen(program, options, evidence, costs, sizes)
    coupling, kept = chosen.scope.coupling, _kept(criterion, chosen, evidence)
    removed = np.zeros(len(coupling.roots), dtype=bool)
    for group, stays in kept:
        removed[np.delete(coupling.units(group), stays)] = True
    cuts = replace(plan_of(coupling, removed), rewritten_by=program.rewritten_by)
    pruned, ranks = remove(chosen.program, coupling, cuts, removed), dict(chosen.ranks)
    plan = with_ranks(replace(cuts, removed_branches=chosen.branches), program, ranks)
    compensated = None
    if isinstance(criterion, CompensatesUnits):
        values = compensated_values(criterion, program, evidence, kept)
        cut = {name: plan.select(name, value) for name, value in values.items()}
        pruned = pruned.with_tensors(with_values(pruned.tensors(), cut))
        compensated = program.with_tensors(with_values(program.tensors(), values))
    smaller = factorized(pruned, ranks)
    stats = pruning_stats(program, smaller, coupling, chosen.widths) | chosen.told
    stats["low_rank"] = low_rank_layers(pruned, ranks)
    return PassResult(smaller, not plan.is_empty, stats, plan, compensated, chosen.aim)


def kept_by(
    program: Program, options: "PruneFilters", evidence: Evidence | None = None
) -> tuple[Coupling, list[tuple[Group, Kept]]]:
    """The analysis of a program, and the units that options would keep of each group that loses any.

    Nothing is removed. Goals in time, ``depth`` and plans aren't for it: they need more than a program.

    Raises:
        UsageError: The options have one of these, or what `PruneFilters.run` raises.
    """
    options.check_countable()
    criterion = unit_criterion(options.criterion, options.name)
    evidence = evidence_for(criterion, program, evidence, options.seed or 0)
    chosen = _chosen(program, options, evidence, None, None)
    return chosen.scope.coupling, _kept(criterion, chosen, evidence)


def _chosen(
    program: Program, options: "PruneFilters", evidence: Evidence, costs: CostModel | None, sizes: ChosenSizes | None
) -> _Chosen:
    if options.depth:
        return _by_depth(program, options, costs, sizes)
    if sizes is not None and (sizes.ranks or not options.chooses_widths):
        return _by_sizes(program, options, sizes)
    if options.allocation == "joint" and sizes is None:
        return _jointly(program, options, evidence)
    if options.chooses_widths:
        return _by_goals(program, options, evidence, costs, sizes)
    assert options.ratio is not None, "PruneFilters has a ratio, goals or a plan"
    return _by_ratio(program, options.ratio, options)


def _kept(criterion: ScoresUnits | SelectsUnits, chosen: _Chosen, evidence: Evidence) -> list[tuple[Group, Kept]]:
    """The units that stay of each group that loses any."""
    evidence = replace(evidence, tensors=chosen.program.tensors()) if chosen.branches else evidence
    return [
        (group, kept_units(criterion, group, evidence, int(width), chosen.scores.get(position)))
        for position, (group, width) in enumerate(zip(chosen.scope.coupling.groups, chosen.widths, strict=True))
        if width < group.count
    ]


def kept_units(
    criterion: ScoresUnits | SelectsUnits,
    group: Group,
    evidence: Evidence,
    count: int,
    scores: NDArray[Any] | None = None,
) -> Kept:
    """The units of a group that stay: those selected, or else those with the highest scores, ties by index.

    Scores that are known already are not asked for again.

    Raises:
        UsageError: The criterion gives something else than a score for each unit, or than that many units.
    """
    if isinstance(criterion, SelectsUnits):
        with blame(criterion):
            selected = as_array(criterion.select(group, evidence, count))
        stays = np.unique(selected)
        is_of_units = selected.dtype.kind in "iu" and selected.shape == stays.shape == (count,)
        if is_of_units and stays[0] >= 0 and stays[-1] < group.count:
            return stays.astype(np.int64)
        raise UsageError(
            f"The criterion {criterion.name} selects {selected.tolist()} in the group {group.name}: expected "
            f"{count} different units of {group.count}."
        )
    scores = scores_of(criterion, group, evidence) if scores is None else scores
    return np.sort(np.argsort(scores, kind="stable")[group.count - count :])


def compensated_values(
    criterion: CompensatesUnits, program: Program, evidence: Evidence, groups: Sequence[tuple[Group, Kept]]
) -> dict[str, Tensor]:
    """New values of the whole program's tensors, by name; each group sees those of the groups before.

    Raises:
        UsageError: The criterion gives what is no tensor, holds NaN, or isn't a tensor of the program in its shape.
    """
    before = program.tensors()
    values: dict[str, Tensor] = {}
    for group, stays in groups:
        with blame(criterion):
            given = dict(criterion.compensate(group, replace(evidence, tensors={**before, **values}), stays))
        for name, value in given.items():
            if not isinstance(value, Tensor) or bool(value.isnan().any()):
                got = "NaN in" if isinstance(value, Tensor) else f"{type(value).__name__} for"
                raise UsageError(f"The criterion {criterion.name} gives {got} {name}: expected a tensor of numbers.")
            if name not in before or value.shape != before[name].shape:
                raise UsageError(
                    f"The criterion {criterion.name} gives {name} the shape {list(value.shape)}: expected a parameter "
                    f"or buffer of the program in its shape before pruning."
                )
            mask = program.masks.get(name)
            new = value.detach().to(before[name].dtype)
            new = new if mask is None else new * mask
            values |= {other: new for other, tensor in before.items() if tensor is before[name]}
    return values


def pruning_stats(program: Program, pruned: Program, coupling: Coupling, widths: NDArray[np.int64]) -> dict[str, Any]:
    dense_macs, macs = program.macs(), pruned.macs()
    counts = list(zip(coupling.groups, widths.tolist(), strict=True))
    return {
        "macs_dense": dense_macs,
        "macs": macs,
        "macs_speedup": dense_macs / macs,
        "parameters_dense": program.parameter_count(),
        "parameters": pruned.parameter_count(),
        "groups": [{"name": g.name, "layers": g.layers, "width": g.count, "kept": count} for g, count in counts],
        "frozen": [{"name": group.name, "reasons": list(group.reasons)} for group in coupling.frozen],
        "inexact_groups": [group.name for group, count in counts if group.inexact and count < group.count],
        "unknown_operators": coupling.unknown_operators,
    }
