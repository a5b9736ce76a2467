"""Channel permutation: input channels in an order in which 2:4 keeps more magnitude, the network the same function."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from prunec.passes.base import PassResult
from prunec.passes.coupling import Coupling, Group, analyse
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.permutation_search import Order, compile_kernels, efficacy, retained_magnitude, search
from prunec.passes.program import Program, doubled
from prunec.passes.ratios import check_globs
from prunec.passes.reorder import reorder, unmoved
from prunec.passes.two_four import eligibility

#: Work that a second allows on a slow machine, so that what is searched depends on the options alone.
_EXCHANGED_ROWS_PER_SECOND = 4e8
_PAIR_ROWS_PER_SECOND = 5e7
#: How often about each pair of stripes is looked at.
_ROUNDS = 8
#: Exchanges tried for each column at most.
_EXCHANGES_PER_COLUMN = 25_000
#: Searches of one group, each with more weight on the layers that lost in the one before.
_TRIES = 4
#: A layer whose channels are cut across by fours may lose this share of its retained magnitude by chance.
_BYSTANDERS_LOSS = 1e-3


@dataclass(frozen=True)
class Permute:
    """Reorder coupled channels so that 2:4 masks along them keep more magnitude.

    The layers that read one group of channels are searched together. A group whose order would cost one of them
    magnitude keeps its order.

    Attributes:
        seconds: of wall-clock time for all searches; what can't be finished in it is cut short and reported so.
        ignore: globs of layers that will be left dense.
        seed: of the searches.
    """

    seconds: float = 60.0
    ignore: tuple[str, ...] = ()
    seed: int = 0

    name: ClassVar[str] = "permute"

    def __post_init__(self) -> None:
        """Refuse a time that nothing can be done in."""
        if not 0 < self.seconds < float("inf"):
            raise UsageError(f"permute: seconds is {self.seconds}.", hint="For example seconds=60.")

    def run(self, program: Program) -> PassResult:
        """Permute a program.

        Raises:
            UsageError: a glob of ``ignore`` matches no layer.
            NumericMismatchError: the example's outputs can't be compared.
        """
        check_globs(self.ignore, [layer.name for layer in program.layers()], "ignore")
        coupling = analyse(program)
        weights = {e.weight: e.layer for e in eligibility(program, self.ignore) if e.eligible}
        readers = [_Readers.of(group, program, weights) for group in coupling.groups]
        searched = [found for found in readers if found.joint]
        refused = {group.name: _NOT_PRESERVED for group in _unsound(program, coupling, [r.group for r in searched])}
        targets, orders = unmoved(coupling), {}
        compile_kernels()
        deadline = time.monotonic() + self.seconds
        sound = [found for found in searched if found.group.name not in refused]
        for position, found in enumerate(sound):
            share = found.work / sum(later.work for later in sound[position:])
            left = max(0.0, deadline - time.monotonic())
            order = self._search(found, share * left, self.seconds * found.work / sum(r.work for r in sound))
            if order is None:
                refused[found.group.name] = "no order keeps more magnitude in each of its layers"
                continue
            orders[found.group.name] = order
            units = coupling.units(found.group)
            targets[units] = units[order.columns]
        permuted, plan = reorder(program, coupling, targets)
        error = _difference(program, permuted) if plan.kept else 0.0
        if error >= TOLERANCE:
            raise NumericMismatchError(
                f"The permuted network differs from the one before by {error:.1e}, allowed {TOLERANCE:g}.",
                hint="This is a bug of prunec; please report the architecture. A pipeline without permute avoids it.",
            )
        stats = {
            "groups": [_group_stats(found.group, orders.get(found.group.name), refused) for found in searched],
            "layers": _layer_stats(program, permuted, weights),
            "max_relative_error": error,
        }
        return PassResult(permuted, bool(plan.kept), stats, plan)

    def _search(self, readers: "_Readers", seconds: float, nominal_seconds: float) -> Order | None:
        """An order in which no layer loses, None where none was found."""
        columns = readers.group.count // 4 * 4
        exchanges = _exchanges(columns, sum(len(matrix) for matrix in readers.joint), nominal_seconds)
        matrices = [matrix[:, :columns] for matrix in readers.joint]
        weights = np.ones(len(matrices))
        for attempt in range(_TRIES):
            stacked = np.concatenate([w * matrix for w, matrix in zip(weights, matrices, strict=True)])
            found = search(stacked, self.seed + attempt, seconds / _TRIES if attempt else seconds, exchanges)
            order = np.concatenate([found.columns, np.arange(columns, readers.group.count)])
            gains = readers.gains(order)
            if (gains >= 0).all() and readers.bystanders_accept(order):
                return replace(found, columns=order)
            weights[gains < 0] *= 2
        return None


def _exchanges(columns: int, rows: int, seconds: float) -> int:
    """How many exchanges are tried: what is left of the time, on a slow machine, after the pairs of stripes."""
    pair_rows = _ROUNDS * (columns // 4) ** 2 / 2 * rows
    left = max(0.0, seconds - pair_rows / _PAIR_ROWS_PER_SECOND)
    return min(_EXCHANGES_PER_COLUMN * columns, int(left * _EXCHANGED_ROWS_PER_SECOND / rows))


_NOT_PRESERVED = "another order of its channels changes what the network computes"


@dataclass(frozen=True, eq=False)
class _Readers:
    """The layers that read a group's channels.

    Attributes:
        group: the channels.
        joint: magnitudes of those whose fours are fours of the group's units, (rows, units), scaled to a mean of 1.
        bystanders: weights of others, as (rows, columns), with the column of each slice (units, slices per unit).
    """

    group: Group
    joint: list[NDArray[np.float32]]
    bystanders: list[tuple[NDArray[np.float32], NDArray[np.int64]]]

    @classmethod
    def of(cls, group: Group, program: Program, weights: dict[str, str]) -> "_Readers":
        """Find them among the weights that can be 2:4."""
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
        """Rows times units: what a search's time grows with."""
        return float(sum(matrix.size for matrix in self.joint))

    def gains(self, order: NDArray[np.int64]) -> NDArray[np.float64]:
        """Magnitude that each joint layer gains."""
        whole = len(order) // 4 * 4
        return np.array(
            [retained_magnitude(m[:, order[:whole]]) - retained_magnitude(m[:, :whole]) for m in self.joint]
        )

    def bystanders_accept(self, order: NDArray[np.int64]) -> bool:
        """Whether none of the others loses more than chance does."""
        for matrix, slices in self.bystanders:
            moved = np.arange(matrix.shape[1])
            moved[slices.ravel()] = slices[order].ravel()
            before = retained_magnitude(matrix)
            if retained_magnitude(matrix[:, moved]) < before * (1 - _BYSTANDERS_LOSS):
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
    """Groups whose order the network's function depends on, found by bisection with random orders."""
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
    """Relative, on the example input, in float64."""
    outputs = []
    for each in (permuted, program):
        args, kwargs = doubled((program.example_args, program.example_kwargs))
        outputs.append(each.double().eval()(*args, **kwargs))
    return relative_error(*outputs)


def _group_stats(group: Group, order: Order | None, refused: dict[str, str]) -> dict[str, Any]:
    return {
        "name": group.name,
        "units": group.count,
        "reason": refused.get(group.name, ""),
        "complete": order.complete if order else None,
        "pair_rows": order.pair_rows if order else 0,
        "exchanges": order.exchanges if order else 0,
    }


def _layer_stats(program: Program, permuted: Program, weights: dict[str, str]) -> list[dict[str, Any]]:
    """Retained magnitude before and after, as shares of the whole, and efficacy."""
    stats = []
    for weight, layer in weights.items():
        before, after = as_rows(program.tensors()[weight]), as_rows(permuted.tensors()[weight])
        total, kept = float(before.sum(dtype=np.float64)), retained_magnitude(after)
        stats.append(
            {
                "layer": layer,
                "retained_before": retained_magnitude(before) / total if total else 1.0,
                "retained_after": kept / total if total else 1.0,
                "efficacy": efficacy(before, kept),
            }
        )
    return stats
