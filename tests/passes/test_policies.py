"""What is pruned where more than one answer is right: attention, grouped convolutions, roles, inexact groups."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunec.passes.applying import SizesInCodeWarning, apply_plan
from prunec.passes.coupling import Policy, analyse
from prunec.passes.errors import UsageError
from prunec.passes.oracle import TOLERANCE, check_oracle
from prunec.passes.plan import PruningPlan
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.rewrite import apply_plan_to_program, sizes_in_code
from tests.passes.checks import Net, captured, images, normal


class Attention(nn.Module):
    """Self-attention over tokens (N, T, 24): 3 heads of 8, by torch's own operator or written out."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.qkv, self.out = nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 3, 8).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(n, t, 24))  # type: ignore[no-any-return]


def transformer(fused: bool) -> Net:
    return Net(
        lambda s, x: s.head(s.norm(s.embed(x) + s.attention(s.embed(x))).mean(1)),
        embed=nn.Linear(5, 24), attention=Attention(fused), norm=nn.LayerNorm(24), head=nn.Linear(24, 3),
    )  # fmt: skip


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("attention", "widths"), [("head_dim", [8]), ("heads", [3]), ("none", [])])
def test_attention(fused: bool, attention: str, widths: list[int]) -> None:
    program = captured(transformer(fused), normal(2, 7, 5))
    coupling = analyse(program, Policy(attention=attention))  # type: ignore[arg-type]
    assert [g.count for g in coupling.groups if "qkv" in g.name] == widths
    result = PruneFilters(ratio=0.4, attention=attention, min_channels=2).run(program)  # type: ignore[arg-type]
    report = check_oracle(program, result, images(program))
    assert report.passed
    assert not report.exact
    assert report.max_relative_error > TOLERANCE
    assert report.inexact_groups == ["embed"]
    assert result.plan is not None
    replayed = apply_plan_to_program(program, result.plan)
    assert torch.equal(replayed(*images(program)), result.program(*images(program)))


@pytest.mark.parametrize("fused", [False, True])
def test_inexact_groups_can_be_left_whole(fused: bool) -> None:
    program = captured(transformer(fused), normal(2, 7, 5))
    result = PruneFilters(ratio=0.4, inexact_groups="freeze").run(program)
    report = check_oracle(program, result, images(program))
    assert report.exact
    assert report.max_relative_error < TOLERANCE
    assert result.stats["inexact_groups"] == []


@pytest.mark.parametrize(("grouped", "width"), [("groups", 2), ("index", 4), ("auto", 4)])
def test_grouped_convolutions(grouped: str, width: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 2, 1))
    program = captured(network, normal(2, 3, 4, 4))
    groups = analyse(program, Policy(grouped=grouped)).groups  # type: ignore[arg-type]
    assert {group.count for group in groups} == {width}
    result = PruneFilters(ratio=0.5, grouped=grouped).run(program)  # type: ignore[arg-type]
    assert check_oracle(program, result, images(program)).max_relative_error < TOLERANCE


def test_group_norm_loses_whole_groups() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 2, 1))
    program = captured(network, normal(2, 3, 4, 4))
    result = PruneFilters(ratio=0.5).run(program)
    report = check_oracle(program, result, images(program))
    assert report.exact
    assert report.max_relative_error < TOLERANCE
    assert result.plan is not None
    assert apply_plan(network, result.plan, images(program)).checked
    assert (network[1].num_groups, network[1].num_channels) == (2, 4)
    assert torch.allclose(network(*images(program)), result.program(*images(program)))


def test_layer_norm_in_the_users_own_module() -> None:
    network = nn.Sequential(nn.Linear(5, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 3))
    program = captured(network, normal(2, 5))
    result = PruneFilters(ratio=0.5).run(program)
    assert result.plan is not None
    assert apply_plan(network, result.plan, images(program)).checked
    assert network[1].normalized_shape == (6,)
    assert torch.allclose(network(*images(program)), result.program(*images(program)))


def test_roles() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    program = captured(network, normal(2, 3, 4, 4))

    def widths(**options: tuple[str, ...]) -> dict[str, int]:
        stats = PruneFilters(ratio=0.5, **options).run(program).stats  # type: ignore[arg-type]
        return {group["name"]: group["kept"] for group in stats["groups"]}

    assert widths() == {"0": 4, "2": 3}
    assert widths(ignore=("stem",)) == {"0": 8, "2": 3}
    assert widths(freeze=("classifier",)) == {"0": 4, "2": 6}
    assert widths(ignore=("classifier",)) == {"0": 4, "2": 3}


def test_modules_whose_code_holds_sizes_are_named() -> None:
    program = captured(transformer(fused=True), normal(2, 7, 5))
    plan = PruneFilters(ratio=0.4).run(program).plan
    assert plan is not None
    assert set(plan.sizes_in_code) == {"attention"}
    assert set(plan.sizes_in_code["attention"]) <= {"reshape", "view", "scaled_dot_product_attention"}
    plan = PruningPlan.from_json(plan.to_json())
    with pytest.warns(SizesInCodeWarning, match=r"nothing was checked.*attention \(.*: reshape"):
        apply_plan(transformer(fused=True), plan)


class OwnLayerNorm(nn.LayerNorm):
    """A layer of the user's, made from torch's."""


def test_sizes_of_layers_are_not_in_code_but_those_of_functions_are() -> None:
    class Norm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.layer_norm(x, (8,), self.gain)

    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.linspace(1, 2, 8, dtype=x.dtype)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = nn.Linear(8, 6), nn.Linear(8, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), x)

    def holders(norm: nn.Module) -> dict[str, list[str]]:
        plan = (
            PruneFilters(ratio=0.5)
            .run(captured(nn.Sequential(nn.Linear(5, 8), norm, nn.Linear(8, 3)), normal(2, 5)))
            .plan
        )
        assert plan is not None
        return plan.sizes_in_code

    assert holders(Norm()) == {"1": ["layer_norm"]}
    assert holders(nn.LayerNorm(8)) == holders(OwnLayerNorm(8)) == {}
    # Without a weight there's nothing by which a plan could name the layer.
    assert holders(nn.LayerNorm(8, elementwise_affine=False)) == {"1": ["layer_norm"]}
    assert holders(Constant()) == {"1": ["mul"]}
    # Its default scale is that of the width it sees.
    assert holders(Attention()) == {"1": ["scaled_dot_product_attention"]}


@pytest.mark.parametrize("options", [{"attention": "head"}, {"grouped": "both"}])
def test_unknown_policies(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        PruneFilters(ratio=0.5, **options)  # type: ignore[arg-type]


def test_slices_that_count_from_the_end_hold_sizes() -> None:
    class Cut(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :-1].tanh()

    coupling = analyse(captured(nn.Sequential(nn.Linear(5, 8), Cut(), nn.Linear(7, 3)), normal(2, 5)))
    removed = np.zeros(len(coupling.roots), dtype=bool)
    removed[coupling.roots[coupling.slots["0.weight", 0][-1]]] = True
    # Only the channel goes that is cut off, and then the code would cut off another one.
    assert sizes_in_code(coupling, removed) == {"1": ["slice"]}
