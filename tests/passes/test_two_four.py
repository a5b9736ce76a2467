"""2:4 masks: valid, optimal, ties by index; which layers can carry them and why not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.passes.errors import UsageError
from prunec.passes.patterns.eligibility import eligibility
from prunec.passes.sparsify import Sparsify
from prunec.passes.two_four import is_two_four, two_four_mask
from tests.passes.checks import Net, captured, normal


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """(K, 4 n), (K, 4 n, R) or (K, 4 n, R, S) of few distinct values, so that ties are common."""
    kernel = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = (draw(st.integers(1, 4)), 4 * draw(st.integers(1, 3)), *kernel)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]))
    if draw(st.booleans()):
        return torch.randint(-2, 3, shape, generator=generator).to(dtype)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@given(weights())
@settings(max_examples=100, deadline=None)
def test_masks_are_two_four_and_keep_the_most(weight: Tensor) -> None:
    mask = two_four_mask(weight.abs())
    assert mask.shape == weight.shape
    assert mask.dtype == torch.bool
    assert is_two_four(weight * mask)
    groups = mask.movedim(1, -1).reshape(-1, 4)
    assert (groups.sum(1) == 2).all()
    magnitude = weight.abs().double().movedim(1, -1).reshape(-1, 4)
    best = magnitude.topk(2, dim=1).values.sum(1)
    assert torch.equal((magnitude * groups).sum(1), best)


@given(weights())
@settings(max_examples=50, deadline=None)
def test_ties_go_to_the_lower_channel(weight: Tensor) -> None:
    groups = two_four_mask(weight.abs()).movedim(1, -1).reshape(-1, 4)
    magnitude = weight.abs().double().movedim(1, -1).reshape(-1, 4)
    for row, kept in zip(magnitude.tolist(), groups.tolist(), strict=True):
        expected = sorted(range(4), key=lambda i: (-row[i], i))[:2]
        assert [i for i in range(4) if kept[i]] == sorted(expected)


def test_known_masks() -> None:
    weight = torch.tensor([[1.0, -3.0, 2.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 5.0]])
    assert two_four_mask(weight.abs()).int().tolist() == [[0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1]]
    # Along input channels, for each kernel position on its own.
    kernel = torch.zeros(1, 4, 1, 2)
    kernel[0, :, 0, 0], kernel[0, :, 0, 1] = torch.tensor([4.0, 3, 2, 1]), torch.tensor([1.0, 2, 3, 4])
    mask = two_four_mask(kernel.abs())
    assert mask[0, :, 0, 0].tolist() == [True, True, False, False]
    assert mask[0, :, 0, 1].tolist() == [False, False, True, True]


def test_what_is_two_four() -> None:
    assert is_two_four(torch.tensor([[0.0, 1, 2, 0]]))
    assert is_two_four(torch.zeros(2, 8, 3, 3))
    assert not is_two_four(torch.tensor([[1.0, 1, 1, 0]]))
    assert not is_two_four(torch.zeros(2, 6))
    assert not is_two_four(torch.zeros(8))


def network() -> nn.Module:
    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.group(s.wide(s.stem(x)).relu()).relu()
        y = s.wide2(s.up(y)).relu()
        return s.head(torch.nn.functional.linear(y.mean((2, 3)), s.gain.weight * 2) + s.head.bias.sum())  # type: ignore[no-any-return]

    return Net(
        forward, stem=nn.Conv2d(3, 8, 1), wide=nn.Conv2d(8, 8, 3, padding=1), group=nn.Conv2d(8, 8, 1, groups=2),
        up=nn.ConvTranspose2d(8, 8, 2), wide2=nn.Conv2d(8, 10, 1), gain=nn.Linear(10, 8), head=nn.Linear(8, 4),
    )  # fmt: skip


def test_every_layer_has_its_reason() -> None:
    program = captured(network(), normal(2, 3, 4, 4))
    found = {entry.layer: entry for entry in eligibility(program, ignore=("wide2",))}
    assert list(found) == ["stem", "wide", "group", "up", "wide2", "", "head"] or len(found) == 7
    assert found["stem"].reason == "3 input channels are no multiple of 4"
    assert found["group"].reason == "grouped convolution (2 groups)"
    assert found["up"].reason == "conv_transpose2d has no sparse kernels"
    assert found["wide2"].reason == "left dense by the option ignore"
    assert [entry.reason for entry in found.values() if not entry.reason] == ["", ""]
    assert found["wide"].eligible
    assert found["head"].eligible
    assert any(entry.reason == "the weight is computed, not a parameter" for entry in found.values())


def test_the_pass() -> None:
    program = captured(network(), normal(2, 3, 4, 4))
    program.parameters()["head.weight"].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in program.tensors().items()}
    result = Sparsify(ignore=("wide2",)).run(program)
    assert result.modified
    assert set(result.program.masks) == {"wide.weight", "head.weight"}
    tensors = result.program.tensors()
    for name, tensor in before.items():
        assert torch.equal(program.tensors()[name], tensor)  # the input program is unchanged
        mask = result.program.masks.get(name)
        assert torch.equal(tensors[name], tensor if mask is None else tensor * mask)
    assert is_two_four(tensors["wide.weight"])
    assert not result.program.parameters()["head.weight"].requires_grad
    stats = {layer["layer"]: layer for layer in result.stats["layers"]}
    kept = (tensors["wide.weight"].abs().sum() / before["wide.weight"].abs().sum()).item()
    assert stats["wide"]["retained_magnitude"] == pytest.approx(kept)
    assert stats["stem"]["retained_magnitude"] is None
    again = Sparsify(ignore=("wide2",)).run(result.program)
    assert torch.equal(again.program.masks["wide.weight"], result.program.masks["wide.weight"])


def test_a_weight_used_twice_must_be_eligible_in_both_uses() -> None:
    shared = nn.Conv2d(8, 8, 1, bias=False)

    def forward(s: Net, x: Tensor) -> Tensor:
        y = s.shared(s.stem(x))
        return torch.nn.functional.conv_transpose2d(y.relu(), s.shared.weight)

    program = captured(Net(forward, stem=nn.Conv2d(4, 8, 1), shared=shared), normal(2, 4, 4, 4))
    found = {entry.weight: entry.eligible for entry in eligibility(program)}
    assert found == {"stem.weight": True, "shared.weight": False}


def test_nothing_eligible_modifies_nothing() -> None:
    program = captured(nn.Linear(5, 3), normal(2, 5))
    result = Sparsify().run(program)
    assert not result.modified
    assert result.program.masks == {}


def test_options() -> None:
    with pytest.raises(UsageError, match="Unknown sparsity pattern 'two'"):
        Sparsify(pattern="two")
    with pytest.raises(UsageError, match="ignore: no layer matches"):
        Sparsify(ignore=("nothing",)).run(captured(nn.Linear(4, 4), normal(2, 4)))
