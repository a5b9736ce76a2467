"""What must hold for every network however it is pruned."""

import warnings
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunec.passes.base import PassResult
from prunec.passes.coupling import Policy, analyse
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.frontend import capture
from prunec.passes.oracle import TOLERANCE, OracleReport, check_oracle, relative_error, zeroed
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.rewrite import apply_plan_to_program
from tests.architectures.redraw import redraw_
from tests.fuzz.networks import described
from tests.fuzz.writing import build
from tests.passes.checks import assert_shapes_known, check_module, exchanged, normal, random_prune, thin

#: One case in so many is also pruned twice, and tried with wrong plans.
_SHARE = 4
_MUTATIONS = 3
#: An output that varies less than this from sample to sample, relative to its size, would hide errors.
_LEAST_VARIATION = 1e-6


@dataclass(frozen=True)
class Pruning:
    """How a network is pruned.

    Attributes:
        units: which units go: a random number of random ones of each group ("any"), all but one ("all but one"), or
            by a ratio those that a criterion chooses ("l1", "random").
        ratio: Pruning ratio that the criteria are given.
        attention: as `PruneFilters` takes it, like the next two.
        seed: Seed of the weights and of random choices.
    """

    units: Literal["any", "all but one", "l1", "random"] = "any"
    ratio: float = 0.5
    attention: Literal["head_dim", "heads", "none"] = "head_dim"
    grouped: Literal["auto", "groups", "index"] = "auto"
    inexact_groups: Literal["prune", "freeze"] = "prune"
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    Attributes:
        pruned: whether there was something to prune.
        exact: whether no inexact operator was involved.
        varies: whether its outputs depend on its inputs; where they don't, little can be seen.
        mutations: wrong plans that were tried.
        caught: how many of them the oracle found.
    """

    pruned: bool = False
    exact: bool = False
    varies: bool = False
    mutations: int = 0
    caught: int = 0


def check(network: nn.Module, pruning: Pruning) -> Outcome:
    """Prune a network with re-drawn weights and assert that its outputs are right.

    Args:
        network: The network, with an attribute ``image``, the shape of one sample; its weights are drawn anew.
        pruning: how.

    Raises:
        AssertionError: or any other error, which the network didn't deserve.
    """
    network = redraw_(network.eval().double(), pruning.seed)
    program = capture(network, (images(network, 2, 0),))
    x = images(network, 3, 1)
    check_captured(network, program, x)
    result = prune(program, pruning)
    if result is None:
        return Outcome()
    report = check_pruned(program, result, x)
    assert report.exact or pruning.inexact_groups == "prune", "An inexact group was pruned."
    check_replay(program, result, x)
    assert result.plan is not None
    if not result.plan.sizes_in_code:
        with warnings.catch_warnings():  # an instance norm without weights isn't in the plan, and takes any width
            warnings.filterwarnings("ignore", "input's size at dim=1 does not match num_features")
            check_module(network, result, (x,))
    outcome = Outcome(True, report.exact, varies(network, x))
    if pruning.seed % _SHARE:
        return outcome
    again = prune(result.program, Pruning("any", seed=pruning.seed))
    if again is not None:
        check_pruned(result.program, again, x)
    if not outcome.varies:
        return outcome
    mutations, caught = mutations_caught(program, result, images(network, 8, 2), pruning.seed)
    return replace(outcome, mutations=mutations, caught=caught)


def varies(network: nn.Module, x: Tensor) -> bool:
    """Whether every output differs from sample to sample."""
    with torch.no_grad():
        leaves = pytree.tree_leaves(network(x.clone()))
    return all(bool((leaf[0] - leaf[1]).abs().max() > _LEAST_VARIATION * leaf.abs().max()) for leaf in leaves)


def random_program(seed: int, steps: int = 4) -> Program:
    """The program of a random network of so many steps."""
    network = redraw_(build(described(seed, steps).source()).double(), seed)
    return capture(network, (images(network, 2, seed),))


def images(network: nn.Module, batch: int, seed: int) -> Tensor:
    image: tuple[int, ...] = network.image  # type: ignore[assignment]
    return normal(batch, *image, seed=seed)


def check_captured(network: nn.Module, program: Program, x: Tensor) -> None:
    """The program is the network, at another batch than the example's too."""
    assert program.batch_is_dynamic
    with torch.no_grad():
        leaves = zip(*(pytree.tree_leaves(run(x.clone())) for run in (program, network)), strict=True)
        for actual, expected in leaves:
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def prune(program: Program, pruning: Pruning) -> PassResult | None:
    """The pruned program, or None where nothing can be pruned."""
    if pruning.units in ("l1", "random"):
        options: dict[str, Any] = {name: getattr(pruning, name) for name in ("attention", "grouped", "inexact_groups")}
        try:
            return PruneFilters(pruning.ratio, criterion=pruning.units, seed=pruning.seed, **options).run(program)
        except UnsupportedModelError:
            return None
    coupling = analyse(program, Policy(pruning.attention, pruning.grouped))
    exact_only = pruning.inexact_groups == "freeze"
    if pruning.units == "any":
        result = random_prune(program, pruning.seed, coupling=coupling, exact_only=exact_only)
    else:
        result = thin(program, coupling, exact_only)
    return result if result.modified else None


def check_pruned(program: Program, result: PassResult, x: Tensor) -> OracleReport:
    """The oracle at this batch, and a run at another."""
    report = check_oracle(program, result, (x,))
    assert report.passed, report
    assert not report.exact or report.max_relative_error < TOLERANCE, report
    assert_shapes_known(result.program)
    assert result.program.macs() <= program.macs()
    with torch.no_grad():
        pairs = zip(*(pytree.tree_leaves(result.program(batch.clone())) for batch in (x, x[:2])), strict=True)
        for whole, part in pairs:
            assert whole.shape[0] == len(x)
            assert part.shape == (2, *whole.shape[1:])
            torch.testing.assert_close(part, whole[:2], rtol=1e-9, atol=1e-9)
    return report


def check_replay(program: Program, result: PassResult, x: Tensor) -> None:
    """A plan alone does the same again."""
    assert result.plan is not None
    replayed = apply_plan_to_program(program, result.plan)
    with torch.no_grad():
        assert relative_error(replayed(x.clone()), result.program(x.clone())) == 0


def mutations_caught(program: Program, result: PassResult, x: Tensor, seed: int) -> tuple[int, int]:
    """Exchange a kept index in a few dimensions of tensors: in how many, and in how many of them that was seen.

    At each place every kept index is tried in turn until one is seen, since some channels are always zero. A tensor
    that makes no difference whatever its values are, as a bias before a norm over positions, isn't tried.
    """
    assert result.plan is not None
    tensors = program.tensors()
    places = [(name, dim) for name, dims in result.plan.kept.items() for dim in dims]
    chosen = Random(seed).sample(places, min(_MUTATIONS, len(places)))
    tried = caught = 0
    with torch.no_grad():
        expected = zeroed(program, result.plan)(x.clone())
        for name, dim in chosen:
            mutant = result.program.clone()
            # Positive, so that a rectifier behind them doesn't hide them.
            mutant.tensors()[name].copy_(normal(*mutant.tensors()[name].shape, seed=seed).abs())
            if relative_error(mutant(x.clone()), expected) <= TOLERANCE:
                continue
            tried += 1
            for plan in exchanged(result.plan, name, dim, tensors[name].shape[dim]):
                mutant.tensors()[name].copy_(plan.select(name, tensors[name]))
                if relative_error(mutant(x.clone()), expected) > TOLERANCE:
                    caught += 1
                    break
    return tried, caught
