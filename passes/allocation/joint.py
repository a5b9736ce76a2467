"""Widths and ranks together: steps that lose the least of the weights for what they save, until a budget is met.

A step removes some units of one group, or lowers the rank of one layer's weight. Both lose a share of the squared norm
of weights, of what the steps before left of them; every step is the one that loses the least for each
multiply-accumulate that it saves, of those that still have to go.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.allocator import Allocated, Allocator
from prunec.passes.allocation.budgets import MACS, PARAMETERS, Budget, out_of_reach, within
from prunec.passes.allocation.space import Space, Widths
from prunec.passes.allocation.weight_state import WeightState
from prunec.passes.costs.workload import Workload
from prunec.passes.factorizing import obstacles
from prunec.passes.groups import Group
from prunec.passes.interruption import stop_if_asked
from prunec.passes.program import Program
from prunec.passes.ratios import matches
from prunec.passes.roles import expand_roles

if TYPE_CHECKING:
    from prunec.passes.prune_filters import PruneFilters

#: Steps in which a group of many units can lose all of them, about.
_STEPS_PER_GROUP = 32
#: Slices of each unit, int64 (units, slices of one), by dimension, by the name of the weight.
_Members = dict[str, dict[int, NDArray[np.int64]]]


@dataclass(frozen=True)
class JointStep:
    """One way to make the network smaller.

    Attributes:
        loss: Shares of squared norms of weights that are lost by it, in a sum over weights.
        saved: Multiply-accumulates for one sample that it saves.
        weight: Name of the weight whose rank falls; empty where units go.
        rank: The rank that it falls to.
        group: Position of the group whose units go; -1 where a rank falls.
        units: The units that go.
    """

    loss: float
    saved: float
    weight: str = ""
    rank: int = 0
    group: int = -1
    units: tuple[int, ...] = ()

    def worth(self, needed: float) -> tuple[float, float]:
        """What the best step has the least of: loss for each MAC saved of those needed; of equal ones it saves more."""
        counted = min(self.saved, needed)
        return self.loss / counted, -counted


class JointCompression:
    """A network on its way: the units and ranks that are left of it.

    Attributes:
        weights: What is left of each layer's weight, by name.
        space: The widths that groups may have; None where all units stay.
        kept: Whether each unit of a group is left, bool (units,), by the group's position.
    """

    def __init__(self, program: Program, free: Collection[str], space: Space | None, round_to: int) -> None:
        """Begin with everything.

        Args:
            program: The program.
            free: Names of the weights that may be decomposed.
            space: The widths that groups may have; None where all units stay.
            round_to: Ranks are multiples of this, in layers of a small full rank of a halving of it.
        """
        layers, tensors = {layer.weight: layer for layer in program.layers()}, program.tensors()
        self.weights = {
            name: WeightState.of(layer, tensors[name], is_free=name in free)
            for name, layer in layers.items()
            if name in tensors
        }
        groups: Sequence[Group] = () if space is None else space.groups
        self.space, self.kept = space, [np.ones(group.count, dtype=bool) for group in groups]
        self._round_to, self._dense = round_to, float(program.macs())
        self._cheapest: dict[int, tuple[float, tuple[int, ...]]] = {}

    @property
    def widths(self) -> Widths:
        """Units that are left in each group, int64 (groups,)."""
        return np.array([kept.sum() for kept in self.kept], dtype=np.int64)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank by the name of the weight, of layers that are decomposed."""
        ranks = {name: state.chosen_rank for name, state in self.weights.items()}
        return {name: rank for name, rank in ranks.items() if rank is not None}

    @property
    def parameters_saved(self) -> int:
        """Trained scalars that all ranks save."""
        return sum(state.parameters_saved for state in self.weights.values())

    @property
    def lost(self) -> float:
        """Share of their squared norm that weights have lost, in a sum over weights."""
        return sum(state.lost for state in self.weights.values())

    @property
    def macs(self) -> float:
        """Multiply-accumulates for one sample that are left."""
        whole = self._dense if self.space is None else float(self._whole(self.widths))
        return whole - sum(state.saved(state.rank) for state in self.weights.values())

    def steps(self) -> Iterator[JointStep]:
        """Every step that saves something: every lower rank, and for each group the units that lose the least."""
        yield from self._unit_steps()
        for name in self.weights:
            ranks, losses, saved = self._lower_ranks(name)
            for rank, loss, less in zip(ranks.tolist(), losses.tolist(), saved.tolist(), strict=True):
                yield JointStep(loss, less, weight=name, rank=rank)

    def best(self, needed: float) -> JointStep | None:
        """The best of all `steps` by `JointStep.worth`; None where there are none."""
        steps = list(self._unit_steps())
        for name in self.weights:
            ranks, losses, saved = self._lower_ranks(name)
            if len(ranks):
                counted = np.minimum(saved, needed)
                place = int(np.lexsort((-counted, losses / counted))[0])
                steps.append(JointStep(float(losses[place]), float(saved[place]), weight=name, rank=int(ranks[place])))
        return min(steps, key=lambda step: step.worth(needed), default=None)

    def take(self, step: JointStep) -> None:
        """Do a step."""
        touched = {step.weight}
        if step.weight:
            self.weights[step.weight].lower(step.rank)
        else:
            slices = self._slices(step.group, step.units)
            for name, dims in slices.items():
                self.weights[name].remove(dims)
            self.kept[step.group][list(step.units)] = False
            touched = set(slices)
        for group, members in enumerate(self._members):
            if group == step.group or touched & members.keys():
                self._cheapest.pop(group, None)

    def _lower_ranks(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Lower ranks of a weight that are allowed, with what each loses and saves; (ranks,)."""
        state = self.weights[name]
        if not state.is_free:
            return np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
        ranks, losses, saved = (each.numpy() for each in state.lower_ranks())
        allowed = ranks % state.rank_step(self._round_to) == 0
        return ranks[allowed], losses[allowed], saved[allowed]

    def _unit_steps(self) -> Iterator[JointStep]:
        if self.space is None:
            return
        widths, now = self.widths, self.macs
        rows = [(group, self._narrower(widths, group)) for group in self.space.chosen]
        narrower = [(group, row) for group, row in rows if row is not None]
        whole = self._whole(np.stack([row for _, row in narrower])) if narrower else ()
        for (group, row), macs in zip(narrower, whole, strict=True):
            if group not in self._cheapest:
                self._cheapest[group] = self._least_loss(group, int(widths[group] - row[group]))
            loss, units = self._cheapest[group]
            saved = now - (float(macs) - self._saved_by_ranks(group, len(units)))
            if saved > 0:
                yield JointStep(loss, saved, group=group, units=units)

    def _narrower(self, widths: Widths, group: int) -> Widths | None:
        """The widths after the next step of a group; None where no units of it may go."""
        assert self.space is not None
        allowed = self.space.allowed(group)
        below = allowed[allowed < widths[group]]
        if not len(below):
            return None
        near = below[below >= widths[group] - self.space.dense[group] // _STEPS_PER_GROUP]
        row = widths.copy()
        row[group] = near[0] if len(near) else below[-1]
        return row

    def _least_loss(self, group: int, count: int) -> tuple[float, tuple[int, ...]]:
        """The units of a group that lose the least one by one, and what they lose together."""
        losses = np.zeros(len(self.kept[group]))
        for name, dims in self._members[group].items():
            losses += self.weights[name].unit_losses(dims)
        left = np.flatnonzero(self.kept[group])
        units = tuple(left[np.argsort(losses[left], kind="stable")[:count]].tolist())
        slices_by_weight = self._slices(group, units)
        return sum(self.weights[name].loss_of(dims) for name, dims in slices_by_weight.items()), units

    def _slices(self, group: int, units: tuple[int, ...]) -> dict[str, dict[int, list[int]]]:
        """The slices of some units, by dimension, by the name of the weight."""
        return {
            name: {dim: slices[list(units)].ravel().tolist() for dim, slices in dims.items()}
            for name, dims in self._members[group].items()
        }

    def _saved_by_ranks(self, group: int, count: int) -> float:
        """MACs that all ranks save where a group has lost so many more units."""
        total = 0.0
        for name, state in self.weights.items():
            kept = list(state.kept)
            for dim, slices in self._members[group].get(name, {}).items():
                kept[dim] -= count * slices.shape[1]
            total += state.saved(state.rank, kept)
        return total

    def _whole(self, widths: Widths) -> NDArray[np.float64]:
        """MACs of the network at some widths (..., groups) with no layer decomposed."""
        usage: NDArray[np.float64] = MACS.usage(self._workload.at(widths))
        return usage

    @cached_property
    def _workload(self) -> Workload:
        assert self.space is not None
        return self.space.workload.only(MACS.counts)

    @cached_property
    def _members(self) -> list[_Members]:
        """The slices of weights that each unit has, by the group's position."""
        all_members: list[_Members] = []
        for group in () if self.space is None else self.space.groups:
            members: _Members = {}
            for member, slices in zip(group.members, group.slices, strict=True):
                if member.parameter in self.weights:
                    members.setdefault(member.parameter, {})[member.dim] = slices
            all_members.append(members)
        return all_members


def reach(state: JointCompression, speedup: float) -> Budget:
    """Take the best step, one after the other, until the MACs before over those after are as many as asked for.

    Raises:
        OutOfReachError: No steps are left before they are.
    """
    budget = Budget("speedup", speedup, MACS, state.macs)
    while not bool(within(np.array([state.macs / budget.limit]))):
        stop_if_asked()
        step = state.best(state.macs - budget.limit)
        if step is None:
            raise out_of_reach((budget,), {MACS.name: state.macs})
        state.take(step)
    return budget


def jointly(program: Program, options: "PruneFilters", allocator: Allocator) -> tuple[Allocated, JointCompression]:
    """Choose widths and ranks for a speed-up, or for the MACs that a ratio would leave in every group.

    Layers that keep their own filters, or whose weights stay untouched, stay whole.

    Raises:
        OutOfReachError: They can't save so much.
    """
    goals = allocator.goals_of(options)
    assert goals.speedup is not None, "other goals are refused"
    whole = [*expand_roles(program.graph, options.ignore), *expand_roles(program.graph, options.freeze)]
    reasons, scope = obstacles(program), allocator.scope
    free = {each.weight for each in program.layers() if not reasons[each.weight] and not matches([each.name], whole)}
    space = Space(scope.coupling.groups, scope.positions, options.rounding, allocator.workload, ())
    state = JointCompression(program, free, space, options.round_to)
    budget = reach(state, goals.speedup)
    parameters = allocator.figures(state.widths)[PARAMETERS.name] - state.parameters_saved
    figures = {MACS.name: state.macs, PARAMETERS.name: parameters}
    lost = state.lost / len(state.weights)
    return Allocated("joint", state.widths, lost, allocator.dense, figures, allocator.least, (budget,)), state
