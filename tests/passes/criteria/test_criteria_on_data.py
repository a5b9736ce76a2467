"""Criteria that look at data prune small networks of every kind, exactly and the same way twice."""

from typing import Any

import pytest
import torch

from prunec.passes import PruneFilters, check_oracle
from prunec.passes.allocation.goals import Allocation
from prunec.passes.criteria import Evidence
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.errors import UsageError
from tests.passes.checks import images
from tests.passes.criteria.networks import NETWORKS, data, evidence_for

CRITERIA = (
    "hrank", "provable", "provable{variant=sampled}", "provable{variant=hybrid}", "ccp", "ccp{per=sample}",
)  # fmt: skip
CASES = [(network, text) for network in NETWORKS for text in CRITERIA if (network, text) != ("linear", "hrank")]


@pytest.mark.parametrize(("network", "text"), CASES)
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_pruned_networks_equal_zeroed_ones(network: str, text: str, ratio: float) -> None:
    program, criterion = NETWORKS[network](), resolve(text)
    evidence = evidence_for(program, criterion)
    # Only a convolution with groups reads a, whose inputs aren't looked at.
    ignore = ("a",) if (network, criterion.name) == ("grouped", "provable") else ()
    result = PruneFilters(ratio=ratio, criterion=criterion, ignore=ignore).run(program, evidence)
    assert result.modified
    report = check_oracle(program, result, images(program))
    assert report.exact and report.passed


@pytest.mark.parametrize("text", CRITERIA)
def test_the_same_units_stay_twice(text: str) -> None:
    def pruned(seed: int) -> Any:
        program, criterion = NETWORKS["residual"](), resolve(text)
        result = PruneFilters(ratio=0.5, criterion=criterion, seed=seed).run(program, evidence_for(program, criterion))
        assert result.plan is not None
        return result.plan.kept, result.program.tensors()

    (kept, tensors), (again, same) = pruned(1), pruned(1)
    assert kept == again
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    others = [pruned(seed)[0] for seed in range(2, 6)]
    assert any(other != kept for other in others) == ("variant" in text), "only what draws depends on the seed"


@pytest.mark.parametrize("allocation", ["uniform", "global", "greedy", "balanced"])
@pytest.mark.parametrize("text", CRITERIA)
def test_every_allocation_goes_with_them(text: str, allocation: Allocation) -> None:
    program, criterion = NETWORKS["residual"](), resolve(text)
    evidence = evidence_for(program, criterion)
    result = PruneFilters(speedup=1.5, criterion=criterion, allocation=allocation).run(program, evidence)
    assert program.macs() / result.program.macs() >= 1.5
    assert result.stats["allocation"]["allocation"] == allocation
    assert 0 < result.stats["allocation"]["importance_lost"] < 1


@pytest.mark.parametrize("text", CRITERIA)
def test_what_they_need_is_asked_for(text: str) -> None:
    program, criterion = NETWORKS["residual"](), resolve(text)
    with pytest.raises(UsageError, match="on data, beyond the weights"):
        PruneFilters(ratio=0.5, criterion=criterion).run(program)
    with pytest.raises(UsageError, match=r"wasn't measured|is not defined"):
        PruneFilters(ratio=0.5, criterion=criterion).run(program, Evidence({}))
    labels = {"gradients", "labels"} & criterion.needs
    assert bool(labels) == text.startswith("ccp"), "the others are unlabelled"


@pytest.mark.parametrize("text", [text for text in CRITERIA if not text.startswith("ccp")])
def test_unlabelled_data_are_enough(text: str) -> None:
    program, criterion = NETWORKS["residual"](), resolve(text)
    batches: Any = [(inputs, None) for inputs, _ in data()]
    evidence = evidence_for(program, criterion, batches)
    assert PruneFilters(ratio=0.5, criterion=criterion).run(program, evidence).modified


def test_all_of_them_are_measured_in_one_pass() -> None:
    from prunec.calibration import collect_evidence

    program, criteria, batches = NETWORKS["residual"](), [resolve(text) for text in CRITERIA], iter(data())
    evidence = collect_evidence(program, criteria, batches, torch.nn.functional.cross_entropy)
    assert next(batches, None) is None
    assert evidence.samples == 12
    for criterion in criteria:
        alone = PruneFilters(ratio=0.5, criterion=criterion).run(program, evidence_for(program, criterion)).plan
        assert PruneFilters(ratio=0.5, criterion=criterion).run(program, evidence).plan == alone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hrank{images=0}", "hrank: images is 0"),
        ("provable{images=0}", "provable: images is 0"),
        ("provable{variant=chance}", "variant"),
        ("provable{delta=0.0}", r"provable: delta is 0\.0"),
        ("provable{delta=1.0}", r"provable: delta is 1\.0"),
        ("ccp{per=epoch}", "per"),
    ],
)
def test_options_that_can_not_be(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(text)
