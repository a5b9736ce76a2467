"""Computed weights become plain ones."""

import torch
from torch import nn

from prunec.passes.fold import FoldParameters
from prunec.passes.oracle import TOLERANCE, check_oracle, relative_error
from prunec.passes.prune_filters import PruneFilters
from tests.passes.checks import captured, images, normal
from tests.passes.test_rules import StandardisedConv


def test_standardised_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), StandardisedConv(8, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))
    program = captured(network, normal(2, 3, 8, 8))
    result = FoldParameters().run(program)
    assert result.modified
    assert result.stats == {"folded": ["2.weight"]}
    assert set(result.program.parameters()) == set(program.parameters())
    x = images(program)
    with torch.no_grad():
        assert relative_error(result.program(*x), program(*x)) < TOLERANCE
    pruned = PruneFilters(ratio=0.5, inexact_groups="freeze").run(result.program)
    assert {g["name"]: g["kept"] for g in pruned.stats["groups"]} == {"0": 4, "2": 3}
    assert check_oracle(result.program, pruned, x).max_relative_error < TOLERANCE
    # The program that went in is as it was, and pruning it so would be inexact.
    assert "0" in PruneFilters(ratio=0.5).run(program).stats["inexact_groups"]


def test_nothing_to_fold() -> None:
    program = captured(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)), normal(2, 3, 8, 8))
    result = FoldParameters().run(program)
    assert not result.modified
    assert set(result.program.tensors()) == set(program.tensors())


def test_counters_that_no_operator_reads_stay() -> None:
    network = nn.Sequential(StandardisedConv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    program = captured(network, normal(2, 3, 8, 8))
    assert "1.num_batches_tracked" in program.buffers()
    result = FoldParameters().run(program)
    assert result.modified
    assert result.program.tensors().keys() == program.tensors().keys()
