"""Filter pruning: choose units of coupled groups by a criterion and remove them from the whole program."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunec.passes.base import Aim, PassResult
from prunec.passes.cost import layer_name
from prunec.passes.coupling import Coupling, Group, analyse
from prunec.passes.criteria.catalogue import blame
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import CompensatesUnits, ScoresUnits, SelectsUnits
from prunec.passes.errors import UnsupportedModelError, UsageError
from prunec.passes.groups import marked
from prunec.passes.policy import Policy
from prunec.passes.program import Program
from prunec.passes.ratios import Rounding, check_globs, exact, group_ratio, matches
from prunec.passes.rewrite import plan_of, remove
from prunec.passes.roles import expand_roles
from prunec.passes.speedup import MacModel, widths_for_speedup
from prunec.passes.tensors import with_values

#: Layers named for each reason of a refusal.
_NAMED = 4
#: Indices of the units that stay, int64, ascending.
Kept = NDArray[np.int64]


@dataclass(frozen=True)
class Scope:
    """The groups that are pruned, by the options of `PruneFilters`; ``inexact`` groups are or are not.

    With ``for_module`` no head of attention is shortened: a module's code has its width, or computes scales from it.
    """

    ignore: tuple[str, ...]
    freeze: tuple[str, ...]
    residual_streams: bool
    inexact: bool
    for_module: bool

    def positions(self, program: Program, coupling: Coupling) -> list[int]:
        """Positions of the groups that are pruned."""
        ignore, freeze = (expand_roles(program.graph, globs) for globs in (self.ignore, self.freeze))
        layers = _layer_names(program)
        check_globs(ignore, layers, "ignore")
        check_globs(freeze, layers, "freeze")
        of_a_head = marked(coupling.roots, coupling.ties.head_dims if self.for_module else [])
        return [
            position
            for position, group in enumerate(coupling.groups)
            if not matches(group.layers, ignore)
            and not matches({layer_name(member.parameter) for member in group.members}, freeze)
            and (self.residual_streams or not group.residual)
            and (self.inexact or group.exact)
            and not of_a_head[coupling.units(group)].any()
        ]


@dataclass(frozen=True)
class Amount:
    """The amount to prune: a ratio, ratios by glob, or a speed-up."""

    ratio: float | Mapping[str, float] | None
    speedup: float | None
    rounding: Rounding

    def aim(self, dense_macs: int, macs: int, groups: Sequence[Group], widths: NDArray[np.int64]) -> Aim:
        """What was asked of these groups, before widths are rounded, and what became of it.

        Ratios ask for units of groups, which are filters with all that is coupled to them; the options that round
        widths, or keep a number of filters, are named where they keep more.
        """
        if self.speedup is not None:
            return Aim("MACs removed", dense_macs * (1 - 1 / self.speedup), dense_macs - macs)
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
        assert self.ratio is not None
        return group_ratio(group, self.ratio) if isinstance(self.ratio, Mapping) else exact(self.ratio)

    def widths(self, program: Program, coupling: Coupling, positions: Sequence[int]) -> NDArray[np.int64]:
        """Units kept in every group, int64 (groups,); all where a group isn't at one of the positions."""
        if self.speedup is not None:
            model = MacModel.of(program, coupling)
            return widths_for_speedup(model, coupling.groups, positions, self.speedup, self.rounding)
        kept = np.array([group.count for group in coupling.groups], dtype=np.int64)
        for position in positions:
            group = coupling.groups[position]
            kept[position] = self.rounding.kept(group, self._ratio(group))
        return kept


def prune_filters(
    program: Program,
    policy: Policy,
    amount: Amount,
    scope: Scope,
    criterion: ScoresUnits | SelectsUnits,
    evidence: Evidence,
) -> PassResult:
    """Do what `PruneFilters.run` does, with the errors that it raises."""
    coupling = analyse(program, policy)
    positions, macs = scope.positions(program, coupling), program.macs()
    if isinstance(amount.ratio, Mapping):
        check_globs(amount.ratio, _layer_names(program), "ratio")
    if not positions or not macs:
        raise _nothing_prunable(coupling)
    widths = amount.widths(program, coupling, positions)
    kept = [
        (group, kept_units(criterion, group, evidence, int(width)))
        for group, width in zip(coupling.groups, widths, strict=True)
        if width < group.count
    ]
    removed = np.zeros(len(coupling.roots), dtype=bool)
    for group, stays in kept:
        removed[np.delete(coupling.units(group), stays)] = True
    plan = replace(plan_of(coupling, removed), rewritten_by=program.rewritten_by)
    pruned = remove(program, coupling, plan, removed)
    compensated = None
    if isinstance(criterion, CompensatesUnits):
        values = compensated_values(criterion, program, evidence, kept)
        cut = {name: plan.select(name, value) for name, value in values.items()}
        pruned = pruned.with_tensors(with_values(pruned.tensors(), cut))
        compensated = program.with_tensors(with_values(program.tensors(), values))
    stats = _stats(program, pruned, coupling, widths, macs)
    aim = amount.aim(macs, stats["macs"], [coupling.groups[position] for position in positions], widths[positions])
    return PassResult(pruned, bool(plan.kept), stats, plan, compensated, aim)


def kept_units(criterion: ScoresUnits | SelectsUnits, group: Group, evidence: Evidence, count: int) -> Kept:
    """The units of a group that stay: those selected, or else those with the highest scores, ties by index.

    Raises:
        UsageError: The criterion gives something else than a score for each unit, or than that many units.
    """
    if isinstance(criterion, SelectsUnits):
        with blame(criterion):
            selected = _array(criterion.select(group, evidence, count))
        stays = np.unique(selected)
        is_of_units = selected.dtype.kind in "iu" and selected.shape == stays.shape == (count,)
        if is_of_units and stays[0] >= 0 and stays[-1] < group.count:
            return stays.astype(np.int64)
        raise UsageError(
            f"The criterion {criterion.name} selects {selected.tolist()} in the group {group.name}: expected "
            f"{count} different units of {group.count}."
        )
    with blame(criterion):
        scores = _array(criterion.score(group, evidence))
    if scores.shape != (group.count,) or scores.dtype.kind not in "fiu":
        raise UsageError(
            f"The criterion {criterion.name} scores the group {group.name} by {scores.dtype} {list(scores.shape)}: "
            f"expected a number for each of its {group.count} units."
        )
    if np.isnan(scores).any():
        units = _some(np.flatnonzero(np.isnan(scores)).tolist())
        raise UsageError(f"The criterion {criterion.name} scores units {units} of the group {group.name} by NaN.")
    return np.sort(np.argsort(scores, kind="stable")[group.count - count :])


def _array(given: object) -> NDArray[Any]:
    if not isinstance(given, Tensor):
        return np.asarray(given)
    values = given.detach().cpu()  # NumPy has no bfloat16
    return (values.double() if values.is_floating_point() else values).numpy()


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


def _layer_names(program: Program) -> list[str]:
    return list(dict.fromkeys(layer.name for layer in program.layers()))


def _stats(
    program: Program, pruned: Program, coupling: Coupling, widths: NDArray[np.int64], dense_macs: int
) -> dict[str, Any]:
    macs, counts = pruned.macs(), list(zip(coupling.groups, widths.tolist(), strict=True))
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


def _nothing_prunable(coupling: Coupling) -> UnsupportedModelError:
    """The error that lists every reason with the layers that it keeps whole."""
    kept_whole: dict[str, list[str]] = {}
    for group in coupling.frozen:
        for reason in group.reasons:
            kept_whole.setdefault(reason, []).append(group.name)
    if coupling.groups:
        by_option = "left out by ignore, freeze, residual_streams=false, inexact_groups=freeze or for_module"
        kept_whole[by_option] = [group.name for group in coupling.groups]
    lines = [f"  {reason}: {_some(names)}" for reason, names in kept_whole.items()]
    return UnsupportedModelError(
        "\n".join(["No filters of this network can be pruned:", *(lines or ["  it has no layer with filters"])]),
        hint="`prunec inspect` shows every group; a --pipeline without prune-filters compiles the network unpruned.",
    )


def _some(names: Sequence[object]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more
