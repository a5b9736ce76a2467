"""What the tests of the passes share: small networks from functions, random plans, the checks every prune must pass."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.passes.base import PassResult
from prunec.passes.costs.counting import workload_of
from prunec.passes.coupling import Coupling, analyse
from prunec.passes.frontend import capture
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error
from prunec.passes.own_layers import shrink
from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program
from prunec.passes.rewrite import plan_of, remove
from tests.architectures.redraw import redraw_


class Net(nn.Module):
    """A network whose forward is a function of itself and its input; tensors and modules become its own."""

    def __init__(self, function: Callable[..., Any], **members: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            if isinstance(member, Tensor) and not isinstance(member, nn.Parameter):
                self.register_buffer(name, member)
            else:
                setattr(self, name, member)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def captured(network: nn.Module, *args: Any, seed: int = 0) -> Program:
    """The program of a network in float64 with re-drawn weights."""
    return capture(redraw_(network.eval().double(), seed), args)


def images(program: Program, batch: int = 3, seed: int = 5) -> tuple[Any, ...]:
    """Other inputs than the example's, of another batch size where it is dynamic."""
    batch = batch if program.batch_is_dynamic else len(program.example_inputs[0])
    inputs = [
        normal(batch, *tensor.shape[1:], seed=seed + position).to(tensor.dtype)
        for position, tensor in enumerate(program.example_inputs)
    ]
    return tuple(inputs)


def random_prune(
    program: Program, seed: int, least: int = 1, coupling: Coupling | None = None, exact_only: bool = False
) -> PassResult:
    """A random number of random units of every group goes, by the primitive that every pruning pass ends in.

    Args:
        program: the program.
        seed: Seed of the choice.
        least: units that stay at least.
        coupling: analysis of the program, if another policy than the default one counts.
        exact_only: whether groups under operators that mix channels stay whole.
    """
    rng = np.random.default_rng(seed)

    def gone(count: int) -> NDArray[np.int64]:
        kept = int(rng.integers(min(least, count), count + 1))
        return rng.permutation(count)[kept:]

    return _without(program, coupling or analyse(program), gone, exact_only)


def thin(program: Program, coupling: Coupling | None = None, exact_only: bool = False) -> PassResult:
    """Every group is pruned to a single unit: where sizes of 1 would broadcast or vanish, this shows."""
    return _without(program, coupling or analyse(program), lambda count: np.arange(1, count), exact_only)


def _without(
    program: Program, coupling: Coupling, gone: Callable[[int], NDArray[np.int64]], exact_only: bool
) -> PassResult:
    """The program without the units that ``gone`` picks from each group, given their number."""
    removed = np.zeros(len(coupling.roots), dtype=bool)
    for group in coupling.groups:
        if group.exact or not exact_only:
            removed[coupling.units(group)[gone(group.count)]] = True
    plan = plan_of(coupling, removed)
    return PassResult(remove(program, coupling, plan, removed), bool(plan.kept), {}, plan)


def check_exact(program: Program, plans: int = 4) -> Coupling:
    """Random plans and the thinnest one all pass the oracle, at another batch size than the example's."""
    for result in [*(random_prune(program, seed) for seed in range(plans)), thin(program)]:
        report = check_oracle(program, result, images(program))
        assert report.passed
        assert not report.exact or report.max_relative_error < TOLERANCE
        assert_shapes_known(result.program)
    return analyse(program)


def assert_shapes_known(program: Program) -> None:
    """The shapes that the rewritten graph records are those of its tensors."""
    tensors = program.tensors()
    for node in program.graph.find_nodes(op="get_attr"):
        assert node.meta["shapes"] == tuple(tensors[str(node.target)].shape), node.target


def prunable(coupling: Coupling) -> dict[str, int]:
    """Name -> width of every group that can be pruned."""
    return {group.name: group.count for group in coupling.groups}


def reasons(coupling: Coupling, name: str) -> str:
    """Why the groups whose filters are those of a layer are frozen, in one text."""
    found = [group for group in coupling.frozen if name in group.layers]
    assert found, f"{name} is not frozen: {prunable(coupling)}"
    return "; ".join(reason for group in found for reason in group.reasons)


def check_module(network: nn.Module, result: PassResult, args: tuple[Any, ...]) -> None:
    """The plan on the user's own module does what the pass did to the program."""
    assert result.plan is not None
    own = copy.deepcopy(network)
    shrink(own, result.plan)  # `apply_plan` without what it checks
    with torch.no_grad():
        assert relative_error(own(*args), result.program(*args)) < TOLERANCE


def macs_at(program: Program, kept: Any) -> float:
    """MACs of a program by its workload, with ``kept`` units in each group."""
    return float(workload_of(program, analyse(program)).at(np.array(kept)).macs.sum())


def exchanged(plan: PruningPlan, name: str, dim: int, size: int) -> Iterator[PruningPlan]:
    """Plans in which one kept index of one tensor's dimension is exchanged for one that goes, each index in turn."""
    kept = plan.kept[name][dim]
    gone = [index for index in range(size) if index not in kept]
    for position in range(len(kept)):
        other = [*kept[:position], gone[position % len(gone)], *kept[position + 1 :]]
        yield PruningPlan({**plan.kept, name: {**plan.kept[name], dim: other}})
