"""Criteria that look at weights alone, and chance, against brute force."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.passes import Program, PruneFilters, Sparsify, analyse
from prunec.passes.coupling import Group
from prunec.passes.criteria import Evidence
from prunec.passes.criteria.catalogue import resolve
from prunec.passes.criteria.evidence import evidence_for
from prunec.passes.criteria.filters import Random
from prunec.passes.errors import UsageError
from prunec.passes.two_four import two_four_mask
from tests.passes.checks import Net, captured, normal
from tests.passes.criteria.networks import grouped, linear, residual


def scores(program: Program, text: str, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Scores of all groups, by name."""
    criterion = resolve(text)
    evidence = evidence_for(criterion, program, None, seed)
    return {group.name: criterion.score(group, evidence) for group in analyse(program).groups}  # type: ignore[attr-defined]


def filters(program: Program, group: Group) -> list[list[Tensor]]:
    """The filters of each unit, one after the other."""
    found: list[list[Tensor]] = [[] for _ in range(group.count)]
    for position in group.producers:
        member = group.members[position]
        weight = program.tensors()[member.parameter].detach()
        for unit, slices in enumerate(group.slices[position]):
            found[unit] += [weight.select(member.dim, int(index)).flatten() for index in slices]
    return found


@pytest.mark.parametrize("network", [residual, grouped, linear])
def test_max_is_the_mean_of_the_largest_weights(network: Callable[[], Program]) -> None:
    program = network()
    for group in analyse(program).groups:
        expected = [np.mean([float(f.abs().max()) for f in unit]) for unit in filters(program, group)]
        np.testing.assert_allclose(scores(program, "max")[group.name], expected, rtol=1e-12)


@pytest.mark.parametrize("network", [residual, grouped, linear])
def test_fpgm_is_the_sum_of_distances_to_all_other_units(network: Callable[[], Program]) -> None:
    program = network()
    for group in analyse(program).groups:
        units = [torch.cat(unit) for unit in filters(program, group)]
        expected = [sum(float((a - b).square().sum().sqrt()) for b in units) for a in units]
        np.testing.assert_allclose(scores(program, "fpgm")[group.name], expected, rtol=1e-9)


def test_fpgm_removes_the_filter_in_the_middle_whatever_its_norm() -> None:
    """Three filters on a line, far from the origin: the middle one goes, though it isn't the smallest."""
    program = captured(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), normal(2, 2))
    with torch.no_grad():
        program.tensors()["0.weight"].copy_(torch.tensor([[5.0, 1.0], [5.0, 2.0], [5.0, 2.5]]))
    plan = PruneFilters(ratio=0.3, criterion="fpgm").run(program).plan
    assert plan is not None
    assert plan.kept["0.weight"][0] == [0, 2]


def test_many_units_have_the_distances_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are taken in parts, and distances of many filters come from products: the sums stay."""
    program = captured(nn.Sequential(nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 2)), normal(2, 3))
    with torch.no_grad():
        program.tensors()["0.weight"].add_(1000)  # far from the origin
    monkeypatch.setattr("prunec.passes.criteria.fpgm._ROWS", 7)
    rows = program.tensors()["0.weight"].detach()
    expected = (rows[:, None] - rows).norm(dim=2).sum(1)
    np.testing.assert_allclose(scores(program, "fpgm")["0"], expected, rtol=1e-6)


def stream() -> Program:
    """A stream that a layer with a batch norm and one without add to, and a layer without any."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.norm(s.stem(x)).relu()
        return s.head((y + s.b(s.a(y).relu())).mean((2, 3)))  # type: ignore[no-any-return]

    return captured(
        Net(
            forward, stem=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(8), a=nn.Conv2d(8, 6, 1), b=nn.Conv2d(6, 8, 1),
            head=nn.Linear(8, 4),
        ), normal(2, 3, 6, 6),
    )  # fmt: skip


def test_batch_norm_scales_are_those_that_scale_the_units() -> None:
    program = stream()
    criterion, groups = resolve("batchnorm-scale"), {group.name: group for group in analyse(program).groups}
    evidence = evidence_for(criterion, program, None)
    gamma = program.tensors()["norm.weight"].detach().abs().numpy()
    assert np.array_equal(criterion.score(groups["stem"], evidence), gamma)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"batchnorm-scale looks at batch norms, and the filters of a have none"):
        PruneFilters(ratio=0.5, criterion=criterion).run(program)
    plan = PruneFilters(ratio=0.5, criterion=criterion, ignore=("a",)).run(program).plan
    assert plan is not None
    assert plan.kept["stem.weight"][0] == sorted(gamma.argsort()[4:].tolist())


def test_batch_norms_of_one_group_have_their_mean() -> None:
    """A depthwise layer goes with the layer before it; layer norms are no batch norms."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.two(s.depthwise(s.one(s.a(x)).relu())).relu()
        return s.head(s.last(s.b(y).mean((2, 3))))  # type: ignore[no-any-return]

    layers = {"a": nn.Conv2d(3, 6, 1), "depthwise": nn.Conv2d(6, 6, 3, groups=6), "b": nn.Conv2d(6, 4, 1)}
    norms = {"one": nn.BatchNorm2d(6), "two": nn.BatchNorm2d(6), "last": nn.LayerNorm(4)}
    program = captured(Net(forward, **layers, **norms, head=nn.Linear(4, 3)), normal(2, 3, 6, 6))
    criterion, groups = resolve("batchnorm-scale"), {group.name: group for group in analyse(program).groups}
    evidence = evidence_for(criterion, program, None)
    expected = (program.tensors()["one.weight"].abs() + program.tensors()["two.weight"].abs()) / 2
    found = criterion.score(groups["a"], evidence)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-12)
    with pytest.raises(UsageError, match="the filters of b have none"):
        criterion.score(groups["b"], evidence)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["max", "fpgm", "batchnorm-scale"])
def test_of_equal_units_the_first_go(text: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1))
    program = captured(network, normal(2, 3, 6, 6))
    with torch.no_grad():
        for name in ("0.weight", "1.weight"):
            program.tensors()[name].copy_(program.tensors()[name][:1].expand_as(program.tensors()[name]))
    plan = PruneFilters(ratio=0.5, criterion=text).run(program).plan
    assert plan is not None
    assert plan.kept["0.weight"][0] == [3, 4, 5]


def test_chance_follows_the_seed_and_the_name() -> None:
    program = residual()
    one, again, other = (scores(program, "random", seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert all(not np.array_equal(one[name], other[name]) for name in one)

    def of_elements(layer: str, seed: int) -> Tensor:
        return Random().score_elements(torch.zeros(4, 8, 3), Evidence({}, seed=seed, layer=layer))

    assert torch.equal(of_elements("a", 1), of_elements("a", 1))
    assert of_elements("a", 1).shape == (4, 8, 3)
    assert not torch.equal(of_elements("a", 1), of_elements("a", 2))
    assert not torch.equal(of_elements("a", 1), of_elements("b", 1))


def test_chance_masks_weights_too() -> None:
    program = residual()
    masks = Sparsify(criterion="random").run(program).program.masks
    drawn = Random().score_elements(program.tensors()["a.weight"], Evidence({}, layer="a.weight"))
    assert torch.equal(masks["a.weight"], two_four_mask(drawn))
    assert not torch.equal(masks["a.weight"], Sparsify().run(program).program.masks["a.weight"])
