"""Groups: their members, names, order, reasons; the ties behind them."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.passes.coupling import Group, Member, analyse, solve
from prunec.passes.frontend import capture
from prunec.passes.rules.registry import rule
from tests.architectures.mobilenet_v2 import InvertedResidual
from tests.architectures.resnet import BasicBlock, cifar_resnet, imagenet_resnet
from tests.passes.checks import Net, captured, check_exact, normal, prunable, reasons


def members(group: Group) -> set[tuple[str, int, int]]:
    return {(m.parameter, m.dim, m.slices_per_unit) for m in group.members}


def test_a_chain() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10), nn.Linear(10, 2)
    )
    coupling = analyse(captured(network, normal(2, 3, 8, 8)))
    first, second = coupling.groups
    assert (first.name, first.count, first.layers) == ("0", 8, ["0"])
    assert members(first) == {
        ("0.weight", 0, 1), ("0.bias", 0, 1), ("1.weight", 0, 1), ("1.bias", 0, 1),
        ("1.running_mean", 0, 1), ("1.running_var", 0, 1), ("4.weight", 1, 36),
    }  # fmt: skip
    assert members(second) == {("4.weight", 0, 1), ("4.bias", 0, 1), ("5.weight", 1, 1)}
    (flattened,) = [s for m, s in zip(first.members, first.slices, strict=True) if m.parameter == "4.weight"]
    assert np.array_equal(flattened, np.arange(8 * 36).reshape(8, 36))
    assert first.exact
    assert not first.residual
    (last,) = coupling.frozen
    assert (last.name, last.reasons) == ("5", ("an output of the network",))


def test_residual_streams() -> None:
    network = imagenet_resnet(BasicBlock, (1, 1, 1, 1)).eval()
    coupling = analyse(capture(network, (torch.zeros(2, 3, 32, 32),)))
    streams = [group for group in coupling.groups if group.residual]
    assert [group.count for group in streams] == [64, 128, 256, 512]
    assert [group.layers for group in streams][1] == ["layer2.0.conv2", "layer2.0.downsample.0"]
    inner = [group for group in coupling.groups if not group.residual]
    assert [group.layers for group in inner] == [[f"layer{i}.0.conv1"] for i in (1, 2, 3, 4)]
    # Zero-padded shortcuts: the stream grows by channels that other blocks make.
    coupling = analyse(capture(cifar_resnet(8).eval(), (torch.zeros(2, 3, 16, 16),)))
    assert sum(group.count for group in coupling.groups if group.residual) == 64
    assert not coupling.frozen[1:]


def test_an_inverted_residual_couples_its_depthwise_convolution() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), InvertedResidual(8, 8, 1, 4), nn.Conv2d(8, 2, 1))
    coupling = analyse(captured(network, normal(2, 3, 4, 4)))
    inner = next(group for group in coupling.groups if group.count == 32)
    stream = next(group for group in coupling.groups if group.residual)
    assert stream.count == 8
    assert len(inner.layers) == 2
    depthwise = [m for m in inner.members if m.parameter.endswith("weight") and m.dim == 0]
    assert len(depthwise) == 4  # expansion, its norm, depthwise, its norm


def test_concatenation_makes_one_group_per_input() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = torch.cat([s.a(x), s.b(x)], 1)
        return s.d(torch.cat([y, s.c(y)], 1))  # type: ignore[no-any-return]

    network = Net(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(3, 6, 1), c=nn.Conv2d(10, 5, 1), d=nn.Conv2d(15, 2, 1))
    coupling = analyse(captured(network, normal(2, 3, 4, 4)))
    assert prunable(coupling) == {"a": 4, "b": 6, "c": 5}
    assert ("d.weight", 1, 1) in members(coupling.groups[0])
    assert coupling.groups[1].slices[-1].ravel().tolist() == [4, 5, 6, 7, 8, 9]


def test_units_are_ordered_by_their_filters() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.a(x)
        return s.b(y.view(-1, 2, 3, 4, 4).transpose(1, 2).reshape(-1, 6, 4, 4))  # type: ignore[no-any-return]

    coupling = analyse(captured(Net(forward, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 2, 1)), normal(2, 3, 4, 4)))
    (group,) = coupling.groups
    assert group.count == 3
    assert group.members == (
        Member("a.weight", 0, 2), Member("a.bias", 0, 2), Member("b.weight", 1, 2),
    )  # fmt: skip
    assert group.slices[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert group.slices[2].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_parts_with_other_users_are_groups_of_their_own() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        left, right = s.a(x).chunk(2, 1)
        return s.b(left) + s.c(right)  # type: ignore[no-any-return]

    network = Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(4, 2, 1), c=nn.Conv2d(4, 2, 1))
    assert prunable(analyse(captured(network, normal(2, 3, 4, 4)))) == {"a": 4, "a#2": 4}


def test_every_reason_is_told_once_and_in_words() -> None:
    def forward(s: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        y = s.a(x)
        return s.b(y.roll(1, 1)) + s.b(y.roll(1, 1)), y

    coupling = analyse(captured(Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1)), normal(2, 3, 4, 4)))
    assert coupling.groups == ()
    assert reasons(coupling, "a") == "rolled by a number of positions; an output of the network"
    assert coupling.unknown_operators == {}


def test_a_module_called_twice_is_one_member() -> None:
    network = Net(
        lambda s, x: s.head(s.body(s.body(s.stem(x)).sigmoid())),
        stem=nn.Conv2d(3, 8, 1), body=nn.Conv2d(8, 8, 1), head=nn.Conv2d(8, 2, 1),
    )  # fmt: skip
    coupling = check_exact(captured(network, normal(2, 3, 4, 4)))
    (group,) = coupling.groups
    assert {("body.weight", 0, 1), ("body.weight", 1, 1)} <= members(group)


def test_one_parameter_in_several_operators() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = nn.functional.linear(s.encode(x).relu(), s.inner.weight)
        return s.head(nn.functional.linear(y.relu(), s.inner.weight.t()))  # type: ignore[no-any-return]

    network = Net(forward, encode=nn.Linear(5, 8), inner=nn.Linear(8, 12), head=nn.Linear(8, 3))
    assert prunable(check_exact(captured(network, normal(2, 5)))) == {"encode": 8, "inner": 12}

    def with_statistics(s: Net, x: Tensor) -> Tensor:
        return s.head(s.a(x) * s.a.weight.abs().mean((1, 2, 3))[:, None, None])  # type: ignore[no-any-return]

    network = Net(with_statistics, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    assert prunable(check_exact(captured(network, normal(2, 3, 4, 4)))) == {"a": 8}


def test_buffers_and_parameters_per_channel_go_with_the_channels() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.b((s.a(x) - s.mean) * s.scale)  # type: ignore[no-any-return]

    network = Net(
        forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1), mean=torch.linspace(-1, 1, 8)[:, None, None],
        scale=nn.Parameter(torch.ones(8, 1, 1)),
    )  # fmt: skip
    coupling = check_exact(captured(network, normal(2, 3, 4, 4)))
    (group,) = coupling.groups
    assert {("mean", 0, 1), ("scale", 0, 1)} <= members(group)
    assert group.layers == ["a"]  # a scale is no filter


def test_frozen_parameters_are_pruned_and_stay_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    network[0].weight.requires_grad_(False)
    program = captured(network, normal(2, 3, 4, 4))
    check_exact(program)
    assert not program.parameters()["0.weight"].requires_grad
    assert program.parameters()["1.weight"].requires_grad


def test_the_analysis_does_not_depend_on_the_form() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Dropout(), nn.Conv2d(8, 2, 1))
    program = captured(network, normal(2, 3, 4, 4))
    inference = prunable(analyse(program))
    assert prunable(analyse(program.train())) == inference == {"0": 8}


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60))
@settings(max_examples=200, deadline=None)
def test_connected_components(pairs: list[tuple[int, int]]) -> None:
    smallest = list(range(30))
    for _ in range(30):
        for a, b in pairs:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    edges = [(np.array([a]), np.array([b])) for a, b in pairs]
    assert solve(30, edges).tolist() == smallest
    if pairs:
        joined = [(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))]
        assert solve(30, joined).tolist() == smallest


def test_a_long_chain_of_ties() -> None:
    order = np.random.default_rng(0).permutation(20_000)
    assert not solve(20_000, [(order[:-1], order[1:])]).any()


def test_an_analysis_keeps_no_program_alive() -> None:
    """The answer to "is f(0) = 0" is remembered by operator and numbers, not by the node that it was asked for."""

    def analysed() -> list[weakref.ref[Any]]:
        network = nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.Hardtanh(-0.1234, 0.4321), nn.Conv2d(8, 8, 1), nn.ELU(0.4321), nn.Conv2d(8, 8, 1)
        )
        program = capture(network, (torch.randn(2, 3, 4, 4),))
        coupling = analyse(program)
        kept = [program.module, program.graph, *program.parameters().values(), coupling, *program.graph.nodes]
        return [weakref.ref(each) for each in kept]

    references = analysed()
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


@pytest.mark.parametrize(("low", "is_exact"), [(-0.1, True), (0.1, False), (-0.1, True)])
def test_whether_zero_stays_zero_depends_on_the_numbers_of_the_call(low: float, is_exact: bool) -> None:
    network = Net(lambda s, x: torch.nn.functional.hardtanh(s.a(x), low, 0.7).sum(-1), a=nn.Linear(3, 8))
    (group,) = analyse(captured(network, normal(2, 3))).groups
    assert group.exact == is_exact


def test_two_rules_for_one_operator_are_refused() -> None:
    with pytest.raises(ValueError, match="two rules for conv2d"):
        rule("conv2d")(lambda ties, node, a: None)
