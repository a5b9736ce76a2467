"""Ranks of feature maps against singular values of the maps themselves."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from prunec.calibration import collect_evidence
from prunec.passes import PruneFilters, analyse, capture
from prunec.passes.criteria import Evidence, Seen
from prunec.passes.criteria.hrank import HRank, MapRanks
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.program import Program
from tests.architectures.vit import ViT
from tests.passes.checks import Net, captured, normal
from tests.passes.criteria.networks import data, evidence_for, linear, residual

EXAMPLE = Path(__file__).parents[3] / "examples" / "fashion_mnist"
#: Least rank correlation of the scores of two halves of the data.
LEAST_CORRELATION = 0.9


def ranks_of(maps: Tensor, images: int = 100) -> Tensor:
    statistic = MapRanks(images)
    result = statistic.result(statistic.update(None, Seen(maps)))
    assert result is not None
    return result


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 7), st.integers(0, 2**31))
def test_ranks_of_products_are_those_of_linear_algebra(height: int, width: int, inner: int, seed: int) -> None:
    """Of whole numbers, so that products are exact, at any scale."""
    random = np.random.default_rng(seed)
    left, right = (random.integers(-3, 4, size=(2, 4, *shape)) for shape in ((height, inner), (inner, width)))
    products = left @ right
    expected = np.linalg.matrix_rank(products.astype(np.float64)).mean(axis=0)
    for factor in (1.0, 3.0, 1e-6, 1e6):
        assert ranks_of(factor * torch.from_numpy(products).float()).tolist() == expected.tolist()


@given(st.floats(1e-3, 1e3), st.integers(0, 2**31))
def test_scores_don_t_depend_on_a_positive_scale(factor: float, seed: int) -> None:
    maps = torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).relu()
    ranks = ranks_of(maps)
    assert torch.equal(ranks, ranks_of(factor * maps))
    assert (ranks <= 6).all() and (ranks >= 0).all()


def behind_the_stem(program: Program, x: Tensor) -> Tensor:
    t = program.tensors()
    y = nn.functional.conv2d(x, t["stem.weight"])
    norm = (t["norm.running_mean"], t["norm.running_var"], t["norm.weight"], t["norm.bias"])
    return nn.functional.batch_norm(y, *norm).relu()


def test_scores_are_means_over_images_and_over_the_layers_of_a_stream() -> None:
    program, statistic = residual(), MapRanks(640)
    evidence = evidence_for(program, HRank())
    x = torch.cat([inputs for inputs, _ in data()])
    y = behind_the_stem(program, x)
    stem = torch.tensor([[float(torch.linalg.matrix_rank(m)) for m in maps] for maps in y.detach()]).double().mean(0)
    torch.testing.assert_close(evidence.of(statistic, "stem.weight"), stem)
    t = program.tensors()
    inner = nn.functional.conv2d(y, t["a.weight"], t["a.bias"])
    inner = nn.functional.conv2d(inner, t["depthwise.weight"], t["depthwise.bias"], padding=1, groups=6).relu()
    joined = (y + nn.functional.conv2d(inner, t["b.weight"], t["b.bias"])).relu().detach()
    torch.testing.assert_close(evidence.of(statistic, "b.weight"), torch.linalg.matrix_rank(joined).double().mean(0))
    stream, other = analyse(program).groups
    scores = HRank().score(stream, evidence)
    np.testing.assert_allclose(scores, (stem + evidence.of(statistic, "b.weight")).numpy() / 2)
    of_both = (evidence.of(statistic, "a.weight") + evidence.of(statistic, "depthwise.weight")) / 2
    np.testing.assert_allclose(HRank().score(other, evidence), of_both.numpy())
    plan = PruneFilters(ratio={"stem": 0.5, "b": 0.5}, criterion=HRank()).run(program, evidence).plan
    assert plan is not None
    assert plan.kept["stem.weight"][0] == np.sort(np.argsort(scores, kind="stable")[4:]).tolist()


def test_only_so_many_images_are_looked_at() -> None:
    program = residual()
    few = evidence_for(program, HRank(images=6))
    x = torch.cat([inputs for inputs, _ in data()])[:6]
    expected = torch.linalg.matrix_rank(behind_the_stem(program, x).detach()).double().mean(0)
    torch.testing.assert_close(few.of(MapRanks(6), "stem.weight"), expected)
    assert few.samples == 8, "no batch beyond them is run"


def test_what_is_kept_of_the_data_does_not_grow() -> None:
    statistic, state = MapRanks(640), None
    for _ in range(3):
        state = statistic.update(state, Seen(torch.randn(5, 4, 6, 6)))
        assert state is not None
        assert state[0].shape == (4,) and state[0].untyped_storage().nbytes() == 4 * 8
    assert state is not None and state[1] == 15


def test_maps_of_one_pixel_tell_how_often_a_filter_is_active() -> None:
    values = torch.tensor([[0.0, 2.0, 0.0], [0.0, 3.0, 1.0]])
    assert ranks_of(values[..., None, None]).tolist() == [0.0, 1.0, 0.5]


def test_slices_of_a_volume_count_in_the_mean() -> None:
    volume = torch.zeros(1, 1, 2, 3, 3)
    volume[0, 0, 0] = torch.eye(3)
    volume[0, 0, 1, 0] = 1
    assert ranks_of(volume).tolist() == [2.0]


def test_layers_without_maps_have_no_rank() -> None:
    program = linear()
    message = r"hrank is not defined for the group 1: none of its layers gives feature maps .*\nLeave such layers out"
    with pytest.raises(UsageError, match=message):
        PruneFilters(ratio=0.5, criterion=HRank()).run(program, evidence_for(program, HRank()))
    transformer = captured(ViT(8, 4, 8, 1, 2, 5), normal(2, 3, 8, 8))
    evidence = collect_evidence(transformer, [HRank()], data(1))
    with pytest.raises(UsageError, match="hrank is not defined for the group blocks"):
        PruneFilters(ratio=0.5, criterion=HRank(), residual_streams=False).run(transformer, evidence)


def test_a_layer_on_the_last_axis_of_maps_has_ranks() -> None:
    """As in ConvNeXt: linear layers that read channels last."""

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.b(s.a(x.permute(0, 2, 3, 1)).relu())
        return s.head(y.mean((1, 2)))  # type: ignore[no-any-return]

    network = Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 4), head=nn.Linear(4, 5))
    program = captured(network, normal(2, 3, 8, 8))
    evidence = evidence_for(program, HRank())
    x, t = torch.cat([inputs for inputs, _ in data()]).permute(0, 2, 3, 1), program.tensors()
    maps = nn.functional.linear(x, t["a.weight"], t["a.bias"]).relu().permute(0, 3, 1, 2).detach()
    torch.testing.assert_close(evidence.of(MapRanks(640), "a.weight"), torch.linalg.matrix_rank(maps).double().mean(0))


def test_maps_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NumericMismatchError, match="not finite"):
        MapRanks(1).update(None, Seen(torch.full((1, 1, 2, 2), torch.inf)))


def in_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value, equal ones sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return shared


def example() -> Program:
    """The example's trained network."""
    spec = importlib.util.spec_from_file_location("fashion_mnist_model", EXAMPLE / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.resnet()
    network.load_state_dict(torch.load(EXAMPLE / "model.pt", weights_only=True))
    return capture(network.eval(), (torch.zeros(2, 1, 28, 28),))


def test_two_batches_rank_the_example_s_filters_alike() -> None:
    pictures = np.load(EXAMPLE / "fashion_mnist.npz")["train_images"][:256]
    x = torch.from_numpy(pictures).reshape(-1, 1, 28, 28).float()
    x = (x / 255 - 0.2860) / 0.3530
    program = example()

    def evidence(images: Tensor) -> Evidence:
        return collect_evidence(program, [HRank()], [(images, None)])

    first, second = evidence(x[:128]), evidence(x[128:])
    correlations = {}
    for group in analyse(program).groups:
        ranks = [in_ranks(HRank().score(group, each)) for each in (first, second)]
        correlations[group.name] = float(np.corrcoef(*ranks)[0, 1])
    assert np.mean(list(correlations.values())) >= LEAST_CORRELATION
    of_few_ranks = {"blocks.4.conv1", "blocks.4.conv2", "blocks.5.conv1"}  # of 4x4 maps
    assert all(correlations[name] >= LEAST_CORRELATION for name in correlations.keys() - of_few_ranks)
