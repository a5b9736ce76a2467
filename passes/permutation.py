"""Channel permutation: an order of channels in which 2:4 keeps more magnitude and the function stays the same."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prunec.passes.base import PassResult
from prunec.passes.coupling import Coupling, Group, analyse
from prunec.passes.errors import NumericMismatchError
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.patterns.eligibility import eligibility
from prunec.passes.permutation_search import Order, compile_kernels, efficacy, retained_magnitude, search
from prunec.passes.program import Program
from prunec.passes.ratios import check_globs
from prunec.passes.reorder import reorder, unmoved
from prunec.passes.roles import expand_roles
from prunec.passes.tensors import doubled

#: Work that a slow machine does in a second; from it follows what is searched, so that options alone decide on it.
_EXCHANGED_ROWS_PER_SECOND = 4e8
_PAIR_ROWS_PER_SECOND = 5e7
#: Number of times that a search looks at each pair of stripes, about.
_ROUNDS = 8
#: Number of exchanges that are tried for each column at most.
_EXCHANGES_PER_COLUMN = 25_000
#: Number of searches of one group; each gives more weight to the layers that lost in the one before.
_TRIES = 4
#: A layer whose channels are cut across by fours may lose this share of its retained magnitude by chance.
_BYSTANDERS_LOSS = 1e-3
_NOT_PRESERVED = "another order of its channels changes what the network computes"


def permute(program: Program, seconds: float, ignore: Sequence[str] = (), seed: int = 0) -> PassResult:
    """Do what `Permute.run` does, with the errors that it raises."""
    check_globs(expand_roles(program.graph, ignore), [layer.name for layer in program.layers()], "ignore")
    coupling = analyse(program)
    weights = {e.weight: e.layer for e in eligibility(program, ignore) if e.eligible}
    readers = [_Readers.of(group, program, weights) for group in coupling.groups]
    searched = [each for each in readers if each.joint]
    refused = {group.name: _NOT_PRESERVED for group in _unsound(program, coupling, [r.group for r in searched])}
    targets, orders = unmoved(coupling), {}
    compile_kernels()
    deadline = time.monotonic() + seconds
    sound = [each for each in searched if each.group.name not in refused]
    for position, reader in enumerate(sound):
        share = reader.work / sum(later.work for later in sound[position:])
        left = max(0.0, deadline - time.monotonic())
        order = _search(reader, seed, share * left, seconds * reader.work / sum(each.work for each in sound))
        if order is None:
            refused[reader.group.name] = "no order keeps more magnitude in each of its layers"
        else:
            orders[reader.group.name] = order
            units = coupling.units(reader.group)
            targets[units] = units[order.columns]
    permuted, plan = reorder(program, coupling, targets)
    error = _difference(program, permuted) if plan.kept else 0.0
    if error >= TOLERANCE:
        raise NumericMismatchError(
            f"The permuted network differs from the one before by {error:.1e}, allowed {TOLERANCE:g}.",
            hint="This is a bug of prunec; please report the architecture. A pipeline without permute avoids it.",
        )
    stats = {
        "groups": [_group_stats(each.group, orders.get(each.group.name), refused) for each in searched],
        "layers": _layer_stats(program, permuted, weights),
        "max_relative_error": error,
    }
    return PassResult(permuted, bool(plan.kept), stats, plan)


def _search(readers: "_Readers", seed: int, seconds: float, nominal_seconds: float) -> Order | None:
    """Search for an order in which no layer loses; None where there was none."""
    columns, rows = readers.group.count // 4 * 4, sum(len(matrix) for matrix in readers.joint)
    # The exchanges that a slow machine has time for after the pairs of stripes.
    pair_rows = _ROUNDS * (columns // 4) ** 2 / 2 * rows
    left = max(0.0, nominal_seconds - pair_rows / _PAIR_ROWS_PER_SECOND)
    exchanges = min(_EXCHANGES_PER_COLUMN * columns, int(left * _EXCHANGED_ROWS_PER_SECOND / rows))
    matrices = [matrix[:, :columns] for matrix in readers.joint]
    weights = np.ones(len(matrices))
    for attempt in range(_TRIES):
        stacked = np.concatenate([w * matrix for w, matrix in zip(weights, matrices, strict=True)])
        result = search(stacked, seed + attempt, seconds / _TRIES if attempt else seconds, exchanges)
        order = np.concatenate([result.columns, np.arange(columns, readers.group.count)])
        gains = readers.gains(order)
        if (gains >= 0).all() and readers.bystanders_accept(order):
            return replace(result, columns=order)
        weights[gains < 0] *= 2
    return None


@dataclass(frozen=True, eq=False)
class _Readers:
    """The layers that read a group's channels.

    Attributes:
        group: The channels.
        joint: Magnitudes of the weights whose fours are fours of the group's units, (rows, units), each of mean 1.
        bystanders: Magnitudes of the other weights, (rows, columns), with the column of each slice (units, slices per
            unit).
    """

    group: Group
    joint: list[NDArray[np.float32]]
    bystanders: list[tuple[NDArray[np.float32], NDArray[np.int64]]]

    @classmethod
    def of(cls, group: Group, program: Program, weights: dict[str, str]) -> "_Readers":
        """The readers of a group among the weights that can be 2:4."""
        joint, bystanders = [], []
        for member, slices in zip(group.members, group.slices, strict=True):
            if member.dim != 1 or member.parameter not in weights:
                continue
            matrix = as_rows(program.tensors()[member.parameter])
            if slices.shape[1] == 1 and _are_fours(slices[:, 0]):
                mean = float(matrix.mean()) or 1.0
                joint.append(np.ascontiguousarray(matrix[:, slices[:, 0]] / mean))
            else:
                bystanders.append((matrix, slices))
        return cls(group, joint if group.count >= 8 else [], bystanders)

    @property
    def work(self) -> float:
        """Rows times units, which the time of a search grows with."""
        return float(sum(matrix.size for matrix in self.joint))

    def gains(self, order: NDArray[np.int64]) -> NDArray[np.float64]:
        """Magnitude that each joint layer gains."""
        end = len(order) // 4 * 4
        return np.array([retained_magnitude(m[:, order[:end]]) - retained_magnitude(m[:, :end]) for m in self.joint])

    def bystanders_accept(self, order: NDArray[np.int64]) -> bool:
        """Whether no bystander loses more magnitude than it would by chance."""
        for matrix, slices in self.bystanders:
            moved = np.arange(matrix.shape[1])
            moved[slices.ravel()] = slices[order].ravel()
            if retained_magnitude(matrix[:, moved]) < retained_magnitude(matrix) * (1 - _BYSTANDERS_LOSS):
                return False
        return True


def as_rows(weight: torch.Tensor) -> NDArray[np.float32]:
    """Magnitudes of a weight (K, C, ...) as (K ..., C): a row for each filter and kernel position."""
    rows: NDArray[np.float32] = weight.detach().abs().movedim(1, -1).flatten(0, -2).float().cpu().numpy()
    return rows


def _are_fours(places: NDArray[np.int64]) -> bool:
    """Whether units in fours, in their order, are fours of input channels."""
    whole = np.sort(places[: len(places) // 4 * 4].reshape(-1, 4), axis=1)
    return bool(((whole[:, 0] % 4 == 0) & (whole[:, 3] - whole[:, 0] == 3)).all())


def _unsound(program: Program, coupling: Coupling, groups: Sequence[Group]) -> list[Group]:
    """Groups whose order the network's function depends on; random orders and bisection single them out."""
    if not groups or _is_preserved(program, coupling, groups):
        return []
    if len(groups) == 1:
        return list(groups)
    half = len(groups) // 2
    return _unsound(program, coupling, groups[:half]) + _unsound(program, coupling, groups[half:])


def _is_preserved(program: Program, coupling: Coupling, groups: Sequence[Group]) -> bool:
    random, targets = np.random.default_rng(0), unmoved(coupling)
    for group in groups:
        units = coupling.units(group)
        targets[units] = random.permutation(units)
    return _difference(program, reorder(program, coupling, targets)[0]) < TOLERANCE


@torch.no_grad()
def _difference(program: Program, permuted: Program) -> float:
    """Relative difference of the outputs on the example input, in float64."""
    outputs = []
    for each in (permuted, program):
        args, kwargs = doubled((program.example_args, program.example_kwargs))
        outputs.append(each.double().eval()(*args, **kwargs))
    return relative_error(*outputs)


def _group_stats(group: Group, order: Order | None, refused: dict[str, str]) -> dict[str, Any]:
    effort: dict[str, Any] = {"complete": None, "pair_rows": 0, "exchanges": 0}
    if order is not None:
        effort = {name: getattr(order, name) for name in effort}
    return {"name": group.name, "units": group.count, "reason": refused.get(group.name, ""), **effort}


def _layer_stats(program: Program, permuted: Program, weights: dict[str, str]) -> list[dict[str, Any]]:
    """Retained magnitude of each layer before and after, as shares of the whole, and efficacy."""
    stats = []
    for weight, layer in weights.items():
        before, after = as_rows(program.tensors()[weight]), as_rows(permuted.tensors()[weight])
        total, kept = float(before.sum(dtype=np.float64)), retained_magnitude(after)
        was, now = (magnitude / total if total else 1.0 for magnitude in (retained_magnitude(before), kept))
        entry = {"layer": layer, "retained_before": was, "retained_after": now, "efficacy": efficacy(before, kept)}
        stats.append(entry)
    return stats
