"""What a GPU's training does for the same result each time, as far as the processor can check it."""

import os

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from prunec.compiler.recovery.deterministic import pool_in_order, same_each_time
from prunec.passes.frontend import capture
from prunec.passes.graphs import calls


@pytest.mark.parametrize(
    ("pool", "shape"),
    [(nn.AdaptiveAvgPool2d(sizes), (3, 8, 8)) for sizes in ((1, 1), (2, 4), (8, 8), (3, 5), (4, 3))]
    + [(nn.AdaptiveAvgPool1d(size), (3, 8)) for size in (1, 4, 3)],
)
def test_pools_give_the_same_outputs_and_gradients(pool: nn.Module, shape: tuple[int, ...]) -> None:
    program = capture(pool, (torch.zeros(2, *shape),))
    x = torch.rand(2, *shape, dtype=torch.float64)
    given, turned = (x.clone().requires_grad_() for _ in range(2))
    program.double()(given).square().sum().backward()
    other = program.double()
    pool_in_order(other.graph)
    other.module.recompile()
    assert not list(calls(other.graph, "adaptive_avg_pool1d", "adaptive_avg_pool2d"))
    other(turned).square().sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(turned.grad, given.grad, rtol=1e-12, atol=1e-12)


def test_decomposed_pools_are_too() -> None:
    graph = Graph()
    graph.output(graph.call_function(torch.ops.aten._adaptive_avg_pool2d.default, (graph.placeholder("x"), [2, 2])))
    pool_in_order(graph)
    x = torch.rand(2, 3, 8, 8)
    pooled = GraphModule(nn.Module(), graph)
    assert not list(calls(pooled.graph, "_adaptive_avg_pool2d"))
    torch.testing.assert_close(pooled(x), nn.AdaptiveAvgPool2d(2)(x))


def test_on_the_processor_nothing_changes() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with same_each_time(torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled() == before


def test_who_has_asked_for_errors_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    torch.use_deterministic_algorithms(True)
    try:
        with same_each_time(torch.device("cuda")):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8", "the user's own"
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_the_user_had_set_is_back_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = True
    try:
        with same_each_time(torch.device("cuda")):
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            assert not torch.backends.cudnn.benchmark
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False
