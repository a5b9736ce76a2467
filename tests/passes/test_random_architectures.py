"""What must hold for any network and any plan, on 200 random networks."""

from collections.abc import Iterator
from random import Random

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from prunec.passes.base import PassResult
from prunec.passes.coupling import analyse
from prunec.passes.frontend import capture
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error
from prunec.passes.program import Program
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.rewrite import apply_plan_to_program
from tests.architectures.random_cnn import RandomCnn, random_cnn
from tests.passes.checks import assert_shapes_known, check_module, random_prune, thin

NETWORKS, CHUNKS = 200, 20
#: Steps of the random networks whose own code holds numbers of channels, which `apply_plan` can't see.
SIZES_IN_CODE = ("split", "channel_shuffle", "awkward")


def networks(chunk: int) -> Iterator[RandomCnn]:
    for seed in range(1000 + chunk, 1000 + NETWORKS, CHUNKS):
        yield random_cnn(seed, 1 + seed % 6).double()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_pruned_equals_zeroed(chunk: int) -> None:
    for network in networks(chunk):
        program = capture(network, (network.example(),))
        assert program.batch_is_dynamic
        seed = Random(str(network)).getrandbits(16)
        results = [random_prune(program, seed), PruneFilters(ratio=0.5).run(program), thin(program)]
        x = network.example(batch=3, seed=1)
        for result in results:
            assert result.program.macs() <= program.macs()
            check_pruned(program, result, x, str(network))
        check_replay(program, results[0], x)
        if not has_sizes_in_code(network):
            check_module(network, results[0], (x,))


def test_the_own_modules_of_many_are_pruned() -> None:
    assert sum(not has_sizes_in_code(network) for chunk in range(CHUNKS) for network in networks(chunk)) >= 30


def check_pruned(program: Program, result: PassResult, x: torch.Tensor, network: str) -> None:
    try:
        report = check_oracle(program, result, (x,))
    except Exception as failure:
        failure.add_note(network)
        raise
    assert report.passed, network
    assert not report.exact or report.max_relative_error < TOLERANCE, network
    assert_shapes_known(result.program)
    assert all(len(leaf) == 3 for leaf in pytree.tree_leaves(result.program(x)) if isinstance(leaf, torch.Tensor))


def check_replay(program: Program, result: PassResult, x: torch.Tensor) -> None:
    assert result.plan is not None
    replayed = apply_plan_to_program(program, result.plan)
    with torch.no_grad():
        assert relative_error(replayed(x), result.program(x)) == 0
    # What is pruned can be pruned again.
    if analyse(result.program).groups:
        check_pruned(result.program, PruneFilters(ratio=0.3).run(result.program), x, "the second time")


def has_sizes_in_code(network: RandomCnn) -> bool:
    steps = str(network).split("# ")[1].split(";")[0].split(", ")
    return any(step in SIZES_IN_CODE for step in steps) or not all(map(_follows, network.heads))


def _follows(head: nn.Module) -> bool:
    """Whether the first step of a head takes any number of channels."""
    if not isinstance(head, nn.Sequential) or not hasattr(head[0], "function"):
        return True
    try:
        return bool(head[0](torch.ones(2, 2, 3, 3)).shape == (2, 2))
    except RuntimeError:
        return False
