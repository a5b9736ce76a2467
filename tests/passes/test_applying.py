"""A plan on the user's own module: equal to the pruned program, or refused with the line, the module as it was."""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from prunec.passes.applying import AppliedPlan, NotCheckedWarning, apply_plan
from prunec.passes.errors import InputError, PrunecError, UnsupportedModelError
from prunec.passes.fold import FoldParameters
from prunec.passes.frontend import capture
from prunec.passes.oracle import TOLERANCE, relative_error
from prunec.passes.own_attention import PrunedMultiheadAttention
from prunec.passes.plan import PruningPlan
from prunec.passes.prune_filters import PruneFilters
from tests.architectures.redraw import redraw_
from tests.passes.checks import Net, captured, check_module, normal, random_prune


class Heads(nn.Module):
    """Self-attention of 4 heads of 8, with heads split in one of several ways."""

    head_dim = 8

    def __init__(self, split: Callable[["Heads", Tensor], tuple[Any, ...]], scale: Callable[["Heads", Tensor], float]):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.split, self.scale = split, scale
        self.num_heads, self.all_head_size = 4, 32

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(*x.shape[:2], *self.split(self, f(x))).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-2, -1) * self.scale(self, q)).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).reshape(*x.shape[:2], -1))  # type: ignore[no-any-return]


def block(attention: nn.Module) -> nn.Module:
    return Net(lambda s, x: s.head(s.norm(s.embed(x) + s.attention(s.embed(x))).mean(1)),
               embed=nn.Linear(5, 32), attention=attention, norm=nn.LayerNorm(32), head=nn.Linear(32, 3))  # fmt: skip


def applied(network: nn.Module, *args: Any, **options: Any) -> AppliedPlan:
    """Apply a plan to a copy, and assert that it is equal to the program then, or as it was."""
    redraw_(network.eval().double(), 0)
    result = PruneFilters(ratio=0.5, min_channels=2, **options).run(capture(network, args))
    assert result.plan is not None
    own = copy.deepcopy(network)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    sizes = [{k: v for k, v in vars(part).items() if isinstance(v, int | tuple)} for part in own.modules()]
    try:
        done = apply_plan(own, result.plan, args)
    except PrunecError:
        assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
        assert sizes == [{k: v for k, v in vars(p).items() if isinstance(v, int | tuple)} for p in own.modules()]
        raise
    with torch.no_grad():
        assert relative_error(own(*args), result.program(*args)) < TOLERANCE
    assert done.checked
    return done


DENSE = 8**-0.5
FITTING: dict[str, tuple[Callable[..., Any], Callable[..., float], dict[str, Any]]] = {
    "of the class": (lambda s, x: (-1, s.head_dim), lambda s, q: DENSE, {"attention.head_dim": (8, 4)}),
    "a product": (lambda s, x: (s.all_head_size // s.num_heads, 4, s.head_dim)[1:], lambda s, q: DENSE,
                  {"attention.head_dim": (8, 4)}),
    "from the tensor": (lambda s, x: (s.num_heads, -1), lambda s, q: DENSE, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FITTING)
def test_attributes_that_hold_widths_are_set(name: str) -> None:
    split, scale, attributes = FITTING[name]
    assert applied(block(Heads(split, scale)), normal(2, 7, 5)).attributes == attributes


REFUSED: dict[str, tuple[Callable[..., Any], Callable[..., float], str]] = {
    "a number": (lambda s, x: (-1, 8), lambda s, q: DENSE, "reshape.*test_applying.py:[0-9]+ in forward"),
    "the scale of the tensor": (lambda s, x: (s.num_heads, -1), lambda s, q: 1 / math.sqrt(q.size(-1)),
                                "mul, .*test_applying.py:.* it takes 0.5 in the module and 0.353553"),
    "the scale of the attribute": (lambda s, x: (-1, s.head_dim), lambda s, q: s.head_dim**-0.5,
                                   "reshape.*With attention.head_dim = 4.*mul, .*takes 0.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_numbers_computed_from_widths_are_refused_with_the_line(name: str) -> None:
    split, scale, words = REFUSED[name]
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        applied(block(Heads(split, scale)), normal(2, 7, 5))
    assert "for_module" in str(caught.value)
    # Whole heads are what such code follows.
    if name != "the scale of the tensor":
        assert not applied(block(Heads(split, scale)), normal(2, 7, 5), for_module=True).attributes


def test_fused_attention_takes_its_scale_from_its_width() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        q, k, v = s.qkv(x).unflatten(-1, (3, s.heads, -1)).permute(2, 0, 3, 1, 4)
        return s.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    attention = Net(forward, qkv=nn.Linear(32, 96), o=nn.Linear(32, 32))
    attention.heads = 4  # type: ignore[assignment]
    with pytest.raises(UnsupportedModelError, match="scaled_dot_product_attention"):
        applied(block(attention), normal(2, 7, 5))
    assert applied(block(attention), normal(2, 7, 5), for_module=True).attributes == {"attention.heads": (4, 2)}


def test_sizes_that_a_list_holds() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        a, b = s.both(x).relu().split(s.sizes, 1)
        return s.head(torch.cat([s.first(a), s.second(b)], 1))  # type: ignore[no-any-return]

    network = Net(forward, both=nn.Linear(5, 24), first=nn.Linear(16, 4), second=nn.Linear(8, 4), head=nn.Linear(8, 3))
    network.sizes = [16, 8]  # type: ignore[assignment]
    assert list(applied(network, normal(2, 5)).attributes) == ["sizes"]


class Rearranged(nn.Module):
    """A layer that computes with a table of sizes which is made of another one, as copies of it are (einops)."""

    def __init__(self, **sizes: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.pairs = tuple(sizes.items())

    def __getstate__(self) -> dict[str, int]:
        return self.sizes

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        ((_, parts), (_, heads)) = self.pairs
        return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4)


def test_sizes_within_tables_are_set_and_survive_copies() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        q, k, v = s.split(s.qkv(x))
        return s.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    attention = Net(forward, qkv=nn.Linear(32, 96), split=Rearranged(parts=3, heads=4), o=nn.Linear(32, 32))
    assert applied(block(attention), normal(2, 7, 5), for_module=True).attributes == {
        "attention.split.sizes": ({"parts": 3, "heads": 4}, {"parts": 3, "heads": 2}),
        "attention.split.pairs": ((("parts", 3), ("heads", 4)), (("parts", 3), ("heads", 2))),
    }


def test_a_single_head_is_not_shortened_for_the_module() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(*x.shape[:2], -1, 16).transpose(1, 2) for f in (s.q, s.k, s.v))
        return s.o(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    attention = Net(forward, q=nn.Linear(32, 16), k=nn.Linear(32, 16), v=nn.Linear(32, 16), o=nn.Linear(16, 32))
    with pytest.raises(UnsupportedModelError, match="is invalid for input of size"):
        applied(block(attention), normal(2, 7, 5))
    assert not applied(block(attention), normal(2, 7, 5), for_module=True).attributes


def test_a_view_that_hides_a_wrong_width_in_the_sequence() -> None:
    """With fewer heads than the attribute says the sequence gets shorter: the module runs, and is captured no more."""

    def forward(s: Net, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(len(x), -1, s.heads, 8).transpose(1, 2) for f in (s.q, s.k, s.v))
        mask = s.mask[: x.shape[1], : x.shape[1]] if torch.compiler.is_exporting() else None
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return s.o(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))  # type: ignore[no-any-return]

    attention = Net(forward, **{name: nn.Linear(32, 32) for name in "qkvo"})
    attention.heads, attention.mask = 4, torch.ones(16, 16, dtype=torch.bool)  # type: ignore[assignment]
    done = applied(block(attention), normal(2, 8, 5), for_module=True)
    assert done.attributes == {"attention.heads": (4, 2)}


def test_ambiguous_attributes() -> None:
    """Number and width of the heads are equal: only one of them holds the width."""

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.width = 4, 4
            self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).view(len(x), self.heads, self.width)
            return self.b((y.softmax(1) * y).reshape(len(x), self.heads * self.width))  # type: ignore[no-any-return]

    network = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), Square(), nn.ReLU(), nn.Linear(16, 3))
    assert len(applied(network, normal(2, 5)).attributes) == 1


@pytest.mark.parametrize("norm", [
    nn.LayerNorm(32, elementwise_affine=False), nn.RMSNorm(32, elementwise_affine=False),
    nn.LayerNorm(32, bias=False),
])  # fmt: skip
def test_norms_without_affine(norm: nn.Module) -> None:
    applied(nn.Sequential(nn.Linear(5, 32), norm, nn.GELU(), nn.Linear(32, 3)), normal(2, 5))


def test_group_norms_without_affine() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.GroupNorm(8, 16, affine=False), nn.ReLU(), nn.Conv2d(16, 3, 1))
    assert applied(network, normal(2, 3, 4, 4)).attributes == {"1.num_groups": (8, 4)}


def test_assertions_and_splits_of_the_users_code() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.channels, self.sizes = 16, (8, 8)
            self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).relu()
            assert y.shape[1] == self.channels
            left, right = y.split(self.sizes, 1)
            return self.b(torch.cat([left, right.tanh()], 1))  # type: ignore[no-any-return]

    done = applied(Halves(), normal(2, 3, 4, 4))
    assert done.attributes == {"channels": (16, 8), "sizes": ((8, 8), (4, 4))}


def test_plain_tensors_of_the_module() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.linspace(-1, 1, 7 * 32, dtype=torch.float64).reshape(7, 32)
            self.a, self.b = nn.Linear(5, 32), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b((self.a(x) + self.table).relu())  # type: ignore[no-any-return]

    assert applied(Positions(), normal(2, 7, 5)).attributes == {"table": ((7, 32), (7, 16))}


def test_dead_branches() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.a(x)
        s.spare(y)
        return s.b(y.relu())  # type: ignore[no-any-return]

    with pytest.raises(UnsupportedModelError, match=r"spare.*test_applying.py:[0-9]+ in forward"):
        applied(Net(forward, a=nn.Linear(5, 8), spare=nn.Linear(8, 4), b=nn.Linear(8, 3)), normal(2, 5))


class Standardised(nn.Linear):
    """A linear layer whose weight is standardised over its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


def test_folded_parameters() -> None:
    network = redraw_(nn.Sequential(nn.Linear(5, 16), nn.ReLU(), Standardised(16, 3)).double(), 0)
    folded = FoldParameters().run(capture(network, (normal(2, 5),))).program
    plan = PruneFilters(ratio=0.5).run(folded).plan
    assert plan is not None
    assert plan.rewritten_by == ("fold-parameters",)
    with pytest.raises(UnsupportedModelError, match="fold-parameters rewrote it"):
        apply_plan(network, PruningPlan.from_json(plan.to_json()), (normal(2, 5),))
    with pytest.warns(NotCheckedWarning, match="fold-parameters"):
        apply_plan(network, plan)


def test_without_an_example_nothing_is_checked() -> None:
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    plan = PruneFilters(ratio=0.5).run(capture(network, (torch.randn(2, 5),))).plan
    assert plan is not None
    with pytest.warns(NotCheckedWarning, match="nothing was checked"):
        assert not apply_plan(network, plan).checked
    assert network[0].out_features == 4


def test_keyword_inputs() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
            assert scale is not None
            return self.b(self.a(x).relu()) * scale  # type: ignore[no-any-return]

    network, inputs = Scaled(), {"x": torch.randn(2, 5), "scale": torch.randn(2, 1)}
    plan = PruneFilters(ratio=0.5).run(capture(network, (), inputs)).plan
    assert plan is not None
    assert apply_plan(network, plan, kwargs=inputs).checked


#: Options of nn.MultiheadAttention, with the arguments that its forward gets beside query, key and value.
ATTENTION: dict[str, tuple[dict[str, Any], Callable[[Tensor], dict[str, Any]]]] = {
    "plain": ({"batch_first": True}, lambda x: {}),
    "tokens first": ({}, lambda x: {}),
    "no weights": ({"batch_first": True}, lambda x: {"need_weights": False}),
    "weights by head": ({"batch_first": True}, lambda x: {"average_attn_weights": False}),
    "no bias": ({"batch_first": True, "bias": False}, lambda x: {}),
    "padding": ({"batch_first": True}, lambda x: {"key_padding_mask": x[..., 0] > 1}),
    "mask": ({"batch_first": True}, lambda x: {"attn_mask": torch.ones(x.shape[1], x.shape[1]).triu(1).bool()}),
    "both masks": ({"batch_first": True}, lambda x: {"attn_mask": torch.ones(7, 7, dtype=x.dtype).tril(),
                                                     "key_padding_mask": torch.zeros_like(x[..., 0]),
                                                     "need_weights": False}),
    "zeros": ({"batch_first": True, "add_zero_attn": True}, lambda x: {}),
    "own bias of keys": ({"batch_first": True, "add_bias_kv": True}, lambda x: {}),
    "other widths": ({"batch_first": True, "kdim": 32, "vdim": 16}, lambda x: {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_multi_head_attention(name: str) -> None:
    options, arguments = ATTENTION[name]

    def forward(s: Net, x: Tensor) -> tuple[Tensor, ...]:
        y = s.embed(x)
        attended, weights = s.attention(y, y, s.value(y), **arguments(y))
        return s.head(attended), *(() if weights is None else (weights,))

    network = Net(
        forward, embed=nn.Linear(5, 32), attention=nn.MultiheadAttention(32, 4, **options),
        value=nn.Linear(32, options.get("vdim", 32)), head=nn.Linear(32, 3),
    )  # fmt: skip
    program = captured(network, normal(7, 7, 5))
    for attention in ("head_dim", "heads"):
        result = PruneFilters(ratio=0.5, min_channels=2, attention=attention).run(program)  # type: ignore[arg-type]
        check_module(network, result, (normal(7, 7, 5, seed=1),))


def test_transformers_of_torch() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    network = nn.Sequential(nn.Linear(5, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 3))
    assert not applied(network, normal(2, 7, 5)).attributes


def test_a_pruned_attention_is_pruned_again_and_saved() -> None:
    network = Net(lambda s, x: s.head(s.attention(s.embed(x), s.embed(x), s.embed(x))[0]), embed=nn.Linear(5, 32),
                  attention=nn.MultiheadAttention(32, 4, batch_first=True), head=nn.Linear(32, 3))  # fmt: skip
    redraw_(network.eval().double(), 0)
    args = (normal(2, 7, 5),)
    program = capture(network, args)
    for seed in range(2):
        result = random_prune(program, seed, least=2)
        assert result.plan is not None
        apply_plan(network, result.plan, args)
        program = capture(network, args)
    attention = network.attention
    assert isinstance(attention, PrunedMultiheadAttention)
    assert relative_error(network(*args), result.program(*args)) < TOLERANCE
    attention.train()(*[normal(2, 7, attention.embed_dim)] * 3)[0].sum().backward()
    assert attention.in_proj_weight is not None
    assert attention.in_proj_weight.grad is not None
    assert relative_error(copy.deepcopy(network)(*args), network(*args)) == 0


class Scored(nn.Module):
    """Attention whose scores are scaled by a width that the pruning changes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.q, self.k, self.head = nn.Linear(5, 32), nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        q = self.q(y)
        weights = (q @ self.k(y).transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.head(weights @ y)  # type: ignore[no-any-return]


@pytest.mark.parametrize("example", [torch.zeros(2, 7, 5), torch.ones(2, 7, 5)])
def test_examples_whose_tokens_are_alike_hide_nothing(example: Tensor) -> None:
    plan = PruneFilters(ratio=0.5).run(capture(Scored(), (torch.randn(2, 7, 5),))).plan
    assert plan is not None
    with pytest.raises(UnsupportedModelError, match=r"div, .*test_applying.py"):
        apply_plan(Scored(), plan, (example,))


def test_token_ids_that_are_alike_are_refused() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Embedding(20, 5), Scored())

    plan = PruneFilters(ratio=0.5).run(capture(network(), (torch.arange(14).view(2, 7),))).plan
    assert plan is not None
    with pytest.raises(InputError, match="are the same"):
        apply_plan(network(), plan, (torch.zeros(2, 7, dtype=torch.long),))
    with pytest.raises(UnsupportedModelError, match="div, "):
        apply_plan(network(), plan, (torch.arange(14).view(2, 7),))


def test_branches_behind_a_gain_of_zero_are_compared() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.branch, self.gain = nn.Linear(5, 32), Scored(), nn.Parameter(torch.zeros(1))
            self.branch.embed = nn.Linear(32, 32)
            self.head = nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.embed(x)
            return self.head(y) + self.gain * self.branch(y)  # type: ignore[no-any-return]

    args = (torch.randn(2, 7, 5),)
    plan = PruneFilters(ratio=0.5).run(capture(Gated(), args)).plan
    assert plan is not None
    with pytest.raises(UnsupportedModelError, match=r"div, .*test_applying.py"):
        apply_plan(Gated(), plan, args)


def test_sizes_of_every_kind_of_attribute() -> None:
    class Sizes(NamedTuple):
        channels: int
        side: int

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._width, self.shape, self.parts = 16, Sizes(16, 4), [16, 8]
            self.a, self.b, self.c = nn.Linear(5, 16), nn.Linear(16, 24), nn.Linear(16, 3)

        @property
        def width(self) -> int:
            return self._width

        @property
        def learned(self) -> int:
            raise RuntimeError("It hasn't learned anything.")

        def forward(self, x: Tensor) -> Tensor:
            y = functional.layer_norm(self.a(x), (self.width,)).view(-1, self.shape.channels).relu()
            left, right = self.b(y).split(self.parts, 1)
            return self.c(left.tanh()).sigmoid() * right.relu().mean(1, keepdim=True)  # type: ignore[no-any-return]

    done = applied(Network(), normal(2, 5)).attributes
    assert done == {"_width": (16, 8), "shape": (Sizes(16, 4), Sizes(8, 4)), "parts": ([16, 8], [8, 4])}


def test_code_that_only_runs_in_training() -> None:
    class Auxiliary(nn.Module):
        def __init__(self, width: int | None = None) -> None:
            super().__init__()
            self.a, self.b, self.auxiliary, self.width = nn.Linear(5, 16), nn.Linear(16, 3), nn.Linear(16, 3), width

        def forward(self, x: Tensor) -> Any:
            y = self.a(x).relu()
            if self.width is not None:
                return self.b(y * torch.ones(self.width, dtype=y.dtype) if self.training else y)
            return (self.b(y), self.auxiliary(y)) if self.training else self.b(y)

    with pytest.raises(UnsupportedModelError, match=r"in training.*test_applying.py:[0-9]+ in forward"):
        applied(Auxiliary(), normal(2, 5))
    network = Auxiliary(16)
    assert applied(network, normal(2, 5)).attributes == {"width": (16, 8)}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("normed", [nn.utils.weight_norm, nn.utils.spectral_norm, parametrizations.weight_norm])
def test_normed_weights_that_were_run(normed: Callable[[nn.Module], nn.Module]) -> None:
    network = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), normed(nn.Linear(8, 3)))
    args = (torch.randn(2, 5),)
    network(*args)
    result = PruneFilters(ratio=0.5, min_channels=2).run(capture(network, args))
    assert result.plan is not None
    assert apply_plan(network, result.plan, args).checked
    with torch.no_grad():
        assert relative_error(network.eval()(*args), result.program(*args)) < 1e-5


def test_dictionaries_of_parameters() -> None:
    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterDict({"a": nn.Parameter(normal(5, 16)), "b": nn.Parameter(normal(16, 3))})

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weights["a"]).relu() @ self.weights["b"]  # type: ignore[no-any-return]

    assert not applied(Weights(), normal(2, 5)).attributes
