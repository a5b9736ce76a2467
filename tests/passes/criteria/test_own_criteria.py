"""prunec's own criteria of units on small networks of every kind: exact, repeatable, and asked for what they need."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from prunec.calibration import collect_evidence
from prunec.compiler.pipeline.own_steps import step_kind
from prunec.passes import Program, PruneFilters, Sparsify, check_oracle
from prunec.passes.allocation.goals import Allocation
from prunec.passes.criteria import Evidence
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.errors import UsageError
from tests.passes.checks import images
from tests.passes.criteria.networks import NETWORKS, data
from tests.passes.criteria.normed_network import normed

NEEDS = {
    "max": "nothing", "fpgm": "nothing", "batchnorm-scale": "nothing", "random": "nothing", "taylor": "labels",
    "taylor{form=weights}": "labels", "taylor-bn": "labels", "skeletonization": "labels", "snip": "labels",
    "magnitude-gradient": "labels", "magnitude-activation": "inputs",
}  # fmt: skip
OF_BATCH_NORMS = ("batchnorm-scale", "taylor-bn")
ALL: dict[str, Callable[[], Program]] = {**NETWORKS, "normed": normed}
CASES = [(network, text) for network in ALL for text in NEEDS if network == "normed" or text not in OF_BATCH_NORMS]


def pruned(program: Program, text: str, **options: Any) -> Any:
    evidence = collect_evidence(program, [text], data(), cross_entropy)
    return PruneFilters(criterion=text, **options).run(program, evidence)


@pytest.mark.parametrize(("network", "text"), CASES)
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_pruned_networks_equal_zeroed_ones(network: str, text: str, ratio: float) -> None:
    program = ALL[network]()
    result = pruned(program, text, ratio=ratio)
    assert result.modified
    report = check_oracle(program, result, images(program))
    assert report.exact
    assert report.passed


@pytest.mark.parametrize("text", NEEDS)
def test_the_same_units_stay_twice(text: str) -> None:
    kept = [pruned(normed(), text, ratio=0.5).plan.kept for _ in range(2)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("allocation", ["uniform", "global", "greedy", "balanced"])
@pytest.mark.parametrize("text", NEEDS)
def test_every_allocation_goes_with_them(text: str, allocation: Allocation) -> None:
    program = normed()
    result = pruned(program, text, speedup=1.5, allocation=allocation)
    assert program.macs() / result.program.macs() >= 1.5
    assert result.stats["allocation"]["allocation"] == allocation


@pytest.mark.parametrize(("text", "needs"), NEEDS.items())
def test_what_they_need_is_known_before_anything_runs(text: str, needs: str) -> None:
    options = PruneFilters(ratio=0.5, criterion=text)
    assert step_kind("prune-filters").needs(options) == needs
    if needs == "nothing":
        assert options.run(normed()).modified
        return
    with pytest.raises(UsageError, match=r"on data, beyond the weights"):
        options.run(normed())
    with pytest.raises(UsageError, match=r"wasn't measured|none multiplies"):
        options.run(normed(), Evidence({}))


@pytest.mark.parametrize(
    ("text", "needs"), [("snip", "labels"), ("magnitude-activation", "inputs"), ("random", "nothing")]
)
def test_masks_have_the_same_needs(text: str, needs: str) -> None:
    assert step_kind("sparsify").needs(Sparsify(criterion=text)) == needs


def test_magnitudes_of_activations_need_no_labels() -> None:
    program, text = normed(), "magnitude-activation"
    batches: Any = [(inputs, None) for inputs, _ in data()]
    unlabelled = collect_evidence(program, [text], batches)
    labelled = collect_evidence(program, [text], data(), cross_entropy)
    assert unlabelled.passes == (1, 0)
    for place, value in labelled.measured.items():
        torch.testing.assert_close(unlabelled.measured[place], value)
    with pytest.raises(UsageError, match="needs labels, and the data have none"):
        collect_evidence(program, ["taylor"], batches, cross_entropy)


def test_those_that_rank_all_units_say_so() -> None:
    together = {text for text in NEEDS if getattr(resolve(text), "comparable", False)}
    assert together == {*NEEDS} - {"max", "fpgm", "random", "magnitude-activation"}
