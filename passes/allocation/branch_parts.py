"""What residual branches are worth, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunec.passes.allocation.importance import Scores, normalised, scores_of
from prunec.passes.branches import Branch, find_branches
from prunec.passes.cost import layer_calls
from prunec.passes.costs.workload import Workload
from prunec.passes.coupling import Coupling
from prunec.passes.criteria.evidence import Evidence
from prunec.passes.criteria.protocol import ScoresUnits
from prunec.passes.groups import Group
from prunec.passes.program import Program
from prunec.passes.ratios import matches


@dataclass(frozen=True, eq=False)
class BranchParts:
    """A residual branch with what it consists of.

    Attributes:
        branch: The branch.
        inside: Positions of the prunable groups that go with it, all of whose tensors do.
        across: Positions of those that lose some of their tensors, such as the stream that it adds to.
        operations: Whether each operation of the workload vanishes with it, bool (operations,).
    """

    branch: Branch
    inside: tuple[int, ...]
    across: tuple[int, ...]
    operations: NDArray[np.bool_]

    def importance(self, criterion: ScoresUnits, groups: Sequence[Group], evidence: Evidence, scores: Scores) -> float:
        """What is lost with the branch, in the measure of `importance.normalised`.

        Of groups inside it all normalised scores; of the others what their scores lose without the branch's tensors,
        over the norm of the scores that they have with them.
        """
        lost = sum(float(normalised(scores[position]).sum()) for position in self.inside if position in scores)
        for position in self.across:
            if position in scores:
                left = _without(groups[position], self.branch)
                lost += _share(scores[position], float(scores_of(criterion, left, evidence).sum()))
        return lost


def branches_of(
    program: Program, coupling: Coupling, workload: Workload, kept_whole: Sequence[str] = ()
) -> tuple[BranchParts, ...]:
    """The branches of a program that may go for a goal: no shortcuts, and none with a layer that a glob matches.

    What follows a branch's last layer up to the next one, the sum among it, counts as that layer's operation.
    """
    calls = {node.name: workload.owners[node.name] for node, _ in layer_calls(program.graph)}
    owned = [{member.parameter for member in group.members} for group in coupling.groups]
    found = []
    for branch in find_branches(program):
        if branch.is_shortcut or matches(branch.layers, kept_whole):
            continue
        gone = set(branch.removed.tensors)
        inside = tuple(position for position, names in enumerate(owned) if names <= gone)
        across = tuple(position for position, names in enumerate(owned) if names & gone and not names <= gone)
        operations = np.zeros(len(workload.operations), dtype=bool)
        operations[[place for name, place in calls.items() if name in branch.nodes]] = True
        found.append(BranchParts(branch, inside, across, operations))
    return tuple(found)


def _without(group: Group, branch: Branch) -> Group:
    """A group as it is without the tensors of a branch."""
    gone = set(branch.removed.tensors)
    pairs = zip(group.members, group.slices, strict=True)
    left = [(member, slices) for member, slices in pairs if member.parameter not in gone]
    return replace(group, members=tuple(m for m, _ in left), slices=tuple(s for _, s in left))


def _share(scores: NDArray[np.float64], left: float) -> float:
    """What scores lose when their sum becomes another, over their Euclidean norm; none where it grows."""
    scores = scores.astype(np.float64)
    norm = float(np.linalg.norm(scores))
    return max(0.0, float(scores.sum()) - left) / norm if norm else 0.0
