"""What must hold for every network, on 200 random ones; and that they are what they promise to be."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree

from prunec.passes.frontend import capture
from prunec.passes.oracle import check_oracle
from prunec.passes.prune_filters import PruneFilters
from tests.architectures.random_cnn import RandomCnn, random_cnn, random_cnns
from tests.architectures.redraw import redraw_


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(random_cnns(), st.sampled_from([0.3, 0.5, 0.8]), st.integers(0, 2**16))
def test_pruned_equals_zeroed_on_random_networks(network: RandomCnn, ratio: float, seed: int) -> None:
    network = network.double()
    program = capture(network, (network.example(),))
    assert program.batch_is_dynamic
    result = PruneFilters(ratio=ratio, criterion="random", min_channels=2, seed=seed).run(program)
    assert result.modified
    assert result.program.macs() < program.macs()
    report = check_oracle(program, result, (network.example(batch=3, seed=1),))
    assert report.passed
    assert not report.exact or report.max_relative_error < 1e-9


@given(random_cnns())
@settings(max_examples=10, deadline=None, derandomize=True)
def test_captured_network_equals_the_module_at_another_batch(network: RandomCnn) -> None:
    network = network.double()
    x = network.example(batch=3, seed=2)
    with torch.no_grad():
        expected, actual = network(x.clone()), capture(network, (network.example(),))(x.clone())
    for a, b in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_seed_names_one_network(seed: int) -> None:
    first, second = random_cnn(seed), random_cnn(seed)
    assert str(first) == str(second)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert all(8 <= side <= 12 for side in first.input_shape[1:])


def test_redrawn_tensors_hide_nothing() -> None:
    norm = nn.BatchNorm2d(8)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ConvTranspose2d(8, 4, 2), nn.PReLU(4))
    for tensor in network.state_dict().values():
        tensor.zero_()
    redraw_(network, seed=0)
    assert all(tensor.ne(0).all() for tensor in network.parameters())
    assert 0.5 <= norm.weight.min() <= norm.weight.max() <= 1.5
    statistics = dict(norm.named_buffers())
    assert 0.5 <= statistics["running_var"].min() <= statistics["running_var"].max() <= 1.5
    assert statistics["running_mean"].ne(0).all()
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    again = redraw_(network, seed=0).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
