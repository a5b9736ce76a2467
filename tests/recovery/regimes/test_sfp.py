"""The hook "sfp": as many filters are zero after every epoch as pruning takes, they grow again, and just they go."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from prunec.calibration.data import Data
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.regimes.sfp import Sfp
from prunec.passes.criteria.units import as_filters, unit_means
from prunec.passes.errors import UsageError
from prunec.passes.program import Program
from tests.recovery.regimes.toys import (
    OPTIONS,
    PRUNING,
    STEPS,
    Watch,
    cut,
    others,
    plain,
    prepare,
    residual,
    stays,
    zero_filters,
)
from tests.recovery.toy_hooks import Toy


@dataclass(frozen=True)
class FromTheMean:
    """The distance of a filter from the mean of all: a filter of zeros may be far from it."""

    name: ClassVar[str] = "from-the-mean"
    needs: ClassVar[frozenset[str]] = frozenset({"weights"})

    def score(self, group: Any, evidence: Any) -> Any:
        def distances(member: Any) -> torch.Tensor:
            filters = as_filters(evidence.tensors[member.parameter], member).double()
            return (filters - filters.mean(0)).norm(dim=1)

        return unit_means(group, distances)


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_after_every_epoch_as_many_filters_are_zero_as_are_pruned(data: Data, ratio: float) -> None:
    found = []

    def count(record: EpochRecord, program: Program) -> None:
        tensors = program.tensors()
        found.append([len(zero_filters(tensors[name])) for name in ("0.weight", "3.weight")])
        assert all(bool(tensors[name].all()) for name in ("1.weight", "4.weight", "3.bias")), "weights alone are zero"

    pruning = replace(PRUNING, ratio=ratio)
    result = prepare(plain(), data, Sfp(), pruning=pruning, progress=count)
    assert found == [[round(8 * ratio)] * 2] * 3
    assert result.hooks[0].figures["zeroed"] == 2 * round(8 * ratio)
    assert result.hooks[0].figures["units"] == 16


def test_zeroed_filters_grow_again_before_the_next_zeroing(data: Data) -> None:
    result = prepare(plain(), data, Sfp(), Watch())
    seen = Toy.started[0].seen
    assert len(seen) == 3 * STEPS
    for epoch in (2, 3):
        before = seen[epoch * STEPS - 1]
        assert zero_filters(before["0.weight"]) == zero_filters(before["3.weight"]) == []
    assert result.hooks[0].figures["regrown_before_each_zeroing"] == [8, 8]
    assert len(zero_filters(result.program.tensors()["0.weight"])) == 4


@pytest.mark.parametrize("criterion", ["l2", "l1", "fpgm", FromTheMean()])
def test_the_pruning_takes_exactly_the_zeroed_filters(data: Data, criterion: Any) -> None:
    pruning = replace(PRUNING, ratio=0.25)
    result = prepare(plain(), data, Sfp(criterion), pruning=pruning)
    pruned = cut(result, pruning)
    for weight in ("0.weight", "3.weight"):
        zeroed = zero_filters(result.program.tensors()[weight])
        assert len(zeroed) == 2
        assert stays(pruned, weight) == others(8, zeroed)


def test_a_pruning_by_norms_takes_them_without_what_was_decided(data: Data) -> None:
    result = prepare(plain(), data, Sfp(), pruning=replace(PRUNING, criterion="l2"))
    pruned = replace(PRUNING, criterion="l2").run(result.program)
    zeroed = zero_filters(result.program.tensors()["3.weight"])
    assert stays(pruned, "3.weight") == others(8, zeroed)


@pytest.mark.parametrize("allocation", ["uniform", "global", "greedy", "balanced"])
def test_what_is_decided_gives_the_same_widths_by_every_allocation(data: Data, allocation: Any) -> None:
    pruning = replace(PRUNING, allocation=allocation)
    result = prepare(plain(), data, Sfp(), pruning=pruning, options=replace(OPTIONS, epochs=2))
    pruned = cut(result, pruning)
    for weight in ("0.weight", "3.weight"):
        kept = others(8, zero_filters(result.program.tensors()[weight]))
        assert pruned.program.tensors()[weight].shape[0] == len(kept)
        assert len(kept) == 8 or stays(pruned, weight) == kept


def test_coupled_filters_become_zero_together(data: Data) -> None:
    result = prepare(residual(), data, Sfp())
    tensors = result.program.tensors()
    shared = [zero_filters(tensors[name]) for name in ("0.weight", "3.second.weight", "4.second.weight")]
    assert shared[0] == shared[1] == shared[2]
    assert len(shared[0]) == 4


@pytest.mark.parametrize(
    ("criterion", "words"),
    [("learned", "doesn't score units by their weights alone"), ("wanda", "units of coupled groups")],
)
def test_criteria_of_more_than_weights_are_refused(criterion: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Sfp(criterion)
