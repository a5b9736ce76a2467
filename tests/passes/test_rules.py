"""Each operator rule alone: what must be prunable is, and pruning equals zeroing in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunec.passes.coupling import Coupling
from tests.passes.checks import Net, captured, check_exact, normal, prunable, reasons


def conv(i: int, o: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(i, o, kernel, padding=kernel // 2, **options)  # type: ignore[arg-type]


def around(middle: Callable[[Tensor, Net], Tensor], channels: int = 8, after: int = 8, **members: nn.Module) -> Net:
    """conv `a` to ``channels``, a sigmoid (so that removed channels are not zero), the operator, conv `b`, head."""
    return Net(
        lambda s, x: s.head(s.b(middle(s.a(x).sigmoid(), s)).relu().mean((2, 3))),
        a=conv(3, channels),
        b=conv(after, 6),
        head=nn.Linear(6, 4),
        **members,
    )


IMAGE = normal(2, 3, 8, 8)

#: Operator -> (what is done to (N, 8, 8, 8) or its like, channels before, channels after)
TRANSPARENT: dict[str, tuple[Callable[[Tensor, Net], Tensor], int, int]] = {
    "nothing": (lambda y, s: y, 8, 8),
    "pointwise": (lambda y, s: F.gelu(y) * 2 + y.clamp(0.1, 0.9), 8, 8),
    "untagged pointwise": (lambda y, s: F.hardswish(F.relu6(F.leaky_relu(y - 0.5))), 8, 8),
    "bool mask": (lambda y, s: torch.where(y > 0.5, y, 0.1 * y).masked_fill(y > 0.9, 0.3), 8, 8),
    "several outputs": (lambda y, s: torch.frexp(y).mantissa, 8, 8),
    "narrow": (lambda y, s: torch.cat([y.narrow(1, -3, 3), y.narrow(1, 0, 5)], 1), 8, 8),
    "a range": (lambda y, s: y * torch.arange(1.0, 9.0)[:, None, None] + torch.linspace(0, 1, 8)[:, None, None], 8, 8),
    "add to itself": (lambda y, s: y + y, 8, 8),
    "cat with itself": (lambda y, s: torch.cat([y, y], 1), 8, 16),
    "cat with the input": (lambda y, s: torch.cat([y, y.amax((2, 3), keepdim=True).expand(-1, -1, 8, 8)], 1), 8, 16),
    "max pool": (lambda y, s: F.max_pool2d(y, 2), 8, 8),
    "max pool with indices": (lambda y, s: F.max_pool2d(y, 2, return_indices=True)[0], 8, 8),
    "average pool": (lambda y, s: F.avg_pool2d(y, 3, 1, 1), 8, 8),
    "adaptive average": (lambda y, s: F.adaptive_avg_pool2d(y, (3, 2)), 8, 8),
    "adaptive max, a tuple": (lambda y, s: F.adaptive_max_pool2d(y, 4, return_indices=True)[0], 8, 8),
    "nearest": (lambda y, s: F.interpolate(y, scale_factor=2), 8, 8),
    "bilinear": (lambda y, s: F.interpolate(y, size=(5, 7), mode="bilinear"), 8, 8),
    "bicubic": (lambda y, s: F.interpolate(y, size=(5, 7), mode="bicubic"), 8, 8),
    "spatial pad": (lambda y, s: F.pad(F.pad(y, (1, 2, 0, 1)), (1, 1, 1, 1), mode="reflect"), 8, 8),
    "index_add": (lambda y, s: y.index_add(2, torch.tensor([1, 5]), y[:, :, :2]), 8, 8),
    "scatter_add": (
        lambda y, s: y.new_zeros(len(y), 8, 8, 8).scatter_add(
            2, torch.arange(8).flip(0).view(1, 1, 8, 1).expand_as(y), y.square()
        ), 8, 8,
    ),
    "stack": (lambda y, s: torch.stack([y, 2 * y], 1).sum(1), 8, 8),
    "stack behind": (lambda y, s: torch.stack([y, y.sigmoid()], -1).amax(-1), 8, 8),
    "split": (lambda y, s: torch.cat(y.split(3, 1)[::-1], 1), 8, 8),
    "split with sizes": (lambda y, s: torch.cat(y.split([2, 6], 1)[::-1], 1), 8, 8),
    "chunk": (lambda y, s: torch.cat(y.chunk(3, 1)[::-1], 1), 8, 8),
    "chunks added": (lambda y, s: y.chunk(2, 1)[0] + y.chunk(2, 1)[1].relu(), 8, 4),
    "slices": (lambda y, s: torch.cat([y[:, 5:], y[:, :5]], 1), 8, 8),
    "open slices": (lambda y, s: torch.cat([y[:, 3:1000], y[:, -1000:3]], 1), 8, 8),
    "negative slices": (lambda y, s: torch.cat([y[:, -3:], y[:, :-3]], 1), 8, 8),
    "slice of a slice": (lambda y, s: torch.cat([y[:, 1:-1][:, -4:], y[:, :-2]], 1), 8, 10),
    "flip": (lambda y, s: y.flip(1), 8, 8),
    "repeat": (lambda y, s: y.repeat(1, 2, 1, 1), 8, 16),
    "repeat of each to a stated size": (lambda y, s: y.repeat_interleave(2, 1, output_size=16), 8, 16),
    "repeat of each": (lambda y, s: y.repeat_interleave(2, 1), 8, 16),
    "a tensor in the code": (lambda y, s: y + torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8])[:, None, None], 8, 8),
    "merged with the batch": (
        lambda y, s: F.avg_pool1d(y.reshape(-1, 1, 64), 3, 1, 1).reshape(-1, 8, 8, 8), 8, 8,
    ),
    "zero-padded channels": (lambda y, s: F.pad(y, (0, 0, 0, 0, 2, 6)), 8, 16),
    "padded channels added": (lambda y, s: F.pad(y, (0, 0, 0, 0, 8, 0)) + torch.cat([y, y.relu()], 1), 8, 16),
    "instance norm": (lambda y, s: F.instance_norm(y), 8, 8),
    "gated halves": (lambda y, s: F.glu(y, 1), 8, 4),
    "patches": (lambda y, s: F.fold(F.unfold(y, 2, stride=2), 8, 2, stride=2), 8, 8),
    "zeros of a width": (lambda y, s: torch.cat([y, y.new_zeros(y.shape[0], 8, 8, 8) + y], 1), 8, 16),
    "spatial slice": (lambda y, s: y[:, :, 1:-1, ::2], 8, 8),
    "spatial select": (lambda y, s: y[:, :, 0].unsqueeze(2) + y.select(3, -1).unsqueeze(-1), 8, 8),
    "unbind of a factor": (lambda y, s: torch.cat(y.unflatten(1, (2, 4)).unbind(1), 1), 8, 8),
    "view": (lambda y, s: y.view(y.shape[0], 8, 64).view(-1, 8, 4, 16), 8, 8),
    "reshape": (lambda y, s: y.reshape(y.shape[0], -1, 16).reshape(-1, 8, 8, 8), 8, 8),
    "flatten and unflatten": (lambda y, s: y.flatten(1).unflatten(1, (8, 8, 8)), 8, 8),
    "channel shuffle": (lambda y, s: y.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8), 8, 8),
    "channel shuffle by unflatten": (lambda y, s: y.unflatten(1, (4, 2)).transpose(1, 2).flatten(1, 2), 8, 8),
    "pixel shuffle by hand": (
        lambda y, s: y.view(-1, 4, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3).reshape(-1, 4, 16, 16), 16, 4,
    ),
    "permutations": (lambda y, s: y.permute(0, 2, 3, 1).transpose(-1, 1).transpose(2, 3), 8, 8),
    "squeezes": (lambda y, s: y.unsqueeze(1).squeeze(1).unsqueeze(-1).squeeze(), 8, 8),
    "squeeze of another axis": (lambda y, s: y.squeeze(1).squeeze((1, 2)), 8, 8),
    "expand": (lambda y, s: y.mean((2, 3), keepdim=True).expand(-1, 8, 3, 3), 8, 8),
    "spatial reductions": (
        lambda y, s: y + y.mean((2, 3), keepdim=True) * y.sum(2, keepdim=True) + y.amax(-1, keepdim=True)
        - y.amin((-1, -2), keepdim=True) + y.var((2, 3), keepdim=True), 8, 8,
    ),
    "spatial softmax": (lambda y, s: y.flatten(2).softmax(-1).unflatten(2, (8, 8)), 8, 8),
    "batch-dependent numbers": (lambda y, s: y * (y.shape[0] / 3) + y.size(1) / y.shape[2] ** 0.5, 8, 8),
    "0-dimensional tensors": (lambda y, s: y * y[:, :, 0, 0].detach().new_tensor(2.0).softmax(0).squeeze(0), 8, 8),
    "casts": (lambda y, s: y.to(torch.float32).float().type(torch.float64), 8, 8),
    "dropout": (lambda y, s: F.dropout2d(F.dropout(y, 0.1, False), 0.5, False), 8, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSPARENT)
def test_channels_are_prunable_through(name: str) -> None:
    middle, before, after = TRANSPARENT[name]
    coupling = check_exact(captured(around(middle, before, after), IMAGE))
    assert "a" in {layer for group in coupling.groups for layer in group.layers}
    assert prunable(coupling)["b"] == 6
    assert not coupling.unknown_operators


def test_every_piece_of_an_axis_keeps_a_channel() -> None:
    def middle(y: Tensor, s: Net) -> Tensor:
        few, many = y.split([2, 6], 1)
        return torch.cat([F.max_pool2d(few, 3, 1, 1), F.avg_pool2d(many, 3, 1, 1)], 1)

    assert prunable(check_exact(captured(around(middle), IMAGE))) == {"a": 2, "a#2": 6, "b": 6}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions(rank: int) -> None:
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    network = nn.Sequential(layer(2, 6, 3, padding="same"), nn.Sigmoid(), layer(6, 8, 2, stride=2), nn.Flatten(),
                            nn.Linear(8 * 2**rank, 3))  # fmt: skip
    coupling = check_exact(captured(network, normal(2, 2, *[4] * rank)))
    assert prunable(coupling) == {"0": 6, "2": 8}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_convolutions_have_filters_in_dimension_1(rank: int) -> None:
    plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    network = nn.Sequential(plain(2, 6, 1), nn.Sigmoid(), transposed(6, 10, 2, 2), nn.Sigmoid(), plain(10, 3, 1))
    coupling = check_exact(captured(network, normal(2, 2, *[3] * rank)))
    assert prunable(coupling) == {"0": 6, "2": 10}
    assert [group.layers for group in coupling.groups] == [["0"], ["2"]]


def test_grouped_transposed_convolutions_keep_their_inputs() -> None:
    network = nn.Sequential(conv(3, 8), nn.ConvTranspose2d(8, 8, 2, 2, groups=2), conv(8, 4), conv(4, 2))
    coupling = check_exact(captured(network, IMAGE))
    assert prunable(coupling) == {"1": 4, "2": 4}
    assert "grouped transposed convolution" in reasons(coupling, "0")


def test_depthwise_transposed_convolutions() -> None:
    network = nn.Sequential(conv(3, 8), nn.ConvTranspose2d(8, 8, 2, 2, groups=8), conv(8, 4), conv(4, 2))
    assert prunable(check_exact(captured(network, IMAGE))) == {"0": 8, "2": 4}


def test_convolution_without_a_batch() -> None:
    network = Net(
        lambda s, x: s.c(s.b(s.a(x[0]).sigmoid()).relu())[None] + 0 * x[:, :1],
        a=conv(3, 8), b=nn.ConvTranspose2d(8, 8, 3, padding=1), c=conv(8, 3),
    )  # fmt: skip
    assert prunable(check_exact(captured(network, IMAGE))) == {"a": 8, "b": 8}


@pytest.mark.parametrize(
    ("groups", "a", "g", "modes"),
    [(4, 8, 8, "groups"), (2, 8, 12, "index"), (8, 8, 8, "depthwise"), (8, 8, 24, "multiplier"), (3, 6, 9, "groups")],
)
def test_grouped_convolutions(groups: int, a: int, g: int, modes: str) -> None:
    network = around(lambda y, s: s.g(y).sigmoid(), a, g, g=conv(a, g, groups=groups))
    coupling = check_exact(captured(network, IMAGE))
    width = a // groups
    by_group = groups >= width
    found = next(group for group in coupling.groups if "a" in group.layers)
    assert found.count == (groups if by_group else width)
    if by_group:
        assert "g" in found.layers
    else:
        assert prunable(coupling)["g"] == g // groups  # its filters go on their own, the same index in every group


def test_grouped_convolution_of_a_concatenation() -> None:
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.head(s.g(torch.cat([s.a(x), s.b(x)], 1)).relu().mean((2, 3)))  # type: ignore[no-any-return]

    network = Net(forward, a=conv(3, 8), b=conv(3, 4), g=conv(12, 24, groups=12), head=nn.Linear(24, 3))
    coupling = check_exact(captured(network, IMAGE))
    assert prunable(coupling) == {"a": 8, "b": 4}
    # Groups of 3 that straddle the two inputs of the concatenation are removed whole.
    network = Net(forward, a=conv(3, 8), b=conv(3, 4), g=conv(12, 12, groups=4), head=nn.Linear(12, 3))
    assert sum(prunable(check_exact(captured(network, IMAGE))).values()) == 4


def test_linear_on_three_dimensions_and_prelu() -> None:
    network = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 6), nn.Flatten(), nn.Linear(18, 3))
    assert prunable(check_exact(captured(network, normal(2, 3, 5)))) == {"0": 8, "2": 6}
    network = nn.Sequential(conv(3, 8), nn.PReLU(8), conv(8, 6), nn.PReLU(), conv(6, 2))
    coupling = check_exact(captured(network, IMAGE))
    assert prunable(coupling) == {"0": 8, "2": 6}
    assert ("1.weight", 0) in {(m.parameter, m.dim) for m in coupling.groups[0].members}


def test_linear_with_one_output_and_no_axis_for_it() -> None:
    network = Net(lambda s, x: F.linear(s.a(x).sigmoid(), s.w), a=nn.Linear(5, 8), w=nn.Parameter(torch.ones(8)))
    assert prunable(check_exact(captured(network, normal(2, 5)))) == {"a": 8}


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_batch_norm(options: dict[str, bool]) -> None:
    network = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8, **options), nn.Sigmoid(), conv(8, 2))
    assert prunable(check_exact(captured(network, IMAGE))) == {"0": 8}


def test_batch_norm_over_other_axes_than_the_channels() -> None:
    def over_positions(**options: bool) -> nn.Module:
        return Net(
            lambda s, x: s.head(s.norm(s.a(x).flatten(2).transpose(1, 2)).sigmoid().mean(1)),
            a=conv(3, 8), norm=nn.BatchNorm1d(64, **options), head=nn.Linear(8, 4),
        )  # fmt: skip

    assert prunable(check_exact(captured(over_positions(), IMAGE))) == {"a": 8}
    coupling = check_exact(captured(over_positions(track_running_stats=False), IMAGE))
    assert inexact(coupling, "a") == ("batch_norm",)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation: the statistics of a filter run over its input channels."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True).reshape(self.weight.shape)
        return F.conv2d(x, weight, self.bias, padding=1)


def test_weight_standardisation_mixes_the_inputs_of_its_statistics() -> None:
    network = nn.Sequential(conv(3, 8), nn.ReLU(), StandardisedConv(8, 6, 3), nn.ReLU(), conv(6, 2))
    coupling = check_exact(captured(network, IMAGE))
    assert prunable(coupling) == {"0": 8, "2": 6}
    assert inexact(coupling, "0") == ("batch_norm",)
    assert inexact(coupling, "2") == ()


def test_squeeze_and_excitation() -> None:
    def middle(y: Tensor, s: Net) -> Tensor:
        gate = s.up(s.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return y * gate

    network = around(middle, down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1))
    coupling = check_exact(captured(network, IMAGE))
    assert prunable(coupling) == {"a": 8, "down": 4, "b": 6}
    assert coupling.groups[0].layers == ["a", "up"]


#: How a weight (6, 8, 3, 3) is computed from a parameter and a gain (6, 1): whether its input channels are prunable.
COMPUTED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    "scaled": (lambda w, g: w * g[:, :, None, None], True),
    "divided": (lambda w, g: (2 * w).contiguous() / (g[:, :, None, None] ** 2 + 1), True),
    "rearranged": (lambda w, g: w.permute(1, 0, 2, 3).transpose(0, 1).flatten(2).unflatten(2, (3, 3)), True),
    "with an offset": (lambda w, g: w * g[:, :, None, None] + 0.1, False),
    "gated": (lambda w, g: w.sigmoid() * g[:, :, None, None], False),
    "outer product": (lambda w, g: w.exp().mean((2, 3), keepdim=True).expand(6, 8, 3, 3) * g[:, :, None, None], False),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights(name: str) -> None:
    compute, is_exact = COMPUTED[name]

    def middle(y: Tensor, s: Net) -> Tensor:
        return F.conv2d(y, compute(s.k.weight, s.gain.weight), padding=1)

    network = around(middle, after=6, k=conv(8, 6, bias=False), gain=nn.Linear(1, 6, bias=False))
    coupling = check_exact(captured(network, IMAGE))
    assert inexact(coupling, "a") == (() if is_exact else ("conv2d",))


def test_a_grouped_computed_weight() -> None:
    def middle(y: Tensor, s: Net) -> Tensor:
        return F.conv2d(y, s.k.weight.sigmoid(), groups=2, padding=1)

    network = around(middle, after=6, k=conv(8, 6, groups=2, bias=False))
    assert inexact(check_exact(captured(network, IMAGE)), "a") == ("conv2d",)


FREEZING: dict[str, tuple[Callable[[Tensor, Net], Tensor], str]] = {
    "stepped slice": (lambda y, s: torch.cat([y[:, ::2], y[:, 1::2]], 1), "slice with a step"),
    "selection": (lambda y, s: y * y[:, 3].unsqueeze(1), "selection by index"),
    "unbind": (lambda y, s: torch.stack([c.relu() for c in y.unbind(1)], 1), "selection by index"),
    "padded channels": (lambda y, s: F.pad(y, (0, 0, 0, 0, -1, 1)), "padding of channels"),
    "lstm": (lambda y, s: s.cell(y.flatten(2).mT)[0].mT.unflatten(2, (8, 8)), "recurrent layer (lstm)"),
    "index_add of channels": (lambda y, s: y.index_add(1, torch.tensor([7, 0]), y[:, :2]), "selection by index"),
    "scatter_add to some": (
        lambda y, s: y.scatter_add(2, torch.zeros(2, 4, 8, 8, dtype=torch.int64), y), "selection by index"
    ),
    "indexing": (lambda y, s: y[:, torch.tensor([7, 0, 1, 2, 3, 4, 5, 6])], "selection by index"),
    "in-place on a slice": (lambda y, s: _in_place(y, lambda z: z[:, :4].sigmoid_()), "in-place sigmoid_ on a view"),
    "in-place add to a slice": (lambda y, s: _in_place(y, lambda z: z[:, :4].add_(1)), "in-place add_ on a view"),
    "copy into a slice": (lambda y, s: _in_place(y, lambda z: z[:, 2:4].copy_(z[:, :2])), "in-place copy_ on a view"),
    "assignment to a channel": (lambda y, s: _in_place(y, lambda z: z[:, 2].fill_(0.5)), "in-place fill_ on a view"),
    "in-place on a view": (lambda y, s: _in_place(y, lambda z: z.flatten(2).mul_(2)), "in-place mul_ on a view"),
    "in-place on an unmarked view": (
        lambda y, s: _in_place(y, lambda z: torch.einsum("bchw->bhwc", z).add_(1)), "in-place add_ on a view",
    ),
    "in-place comparison": (lambda y, s: (y + 0).gt_(0.5), "in-place gt_"),
}  # fmt: skip


#: Operator -> (what is done to (N, 8, 8, 8), operators under which channels are inexact)
MIXING: dict[str, tuple[Callable[[Tensor, Net], Tensor], tuple[str, ...]]] = {
    "mean over channels": (lambda y, s: y - y.mean(1, keepdim=True), ("mean",)),
    "sum over channels": (lambda y, s: y - y.sum(1, keepdim=True), ("sum",)),
    "largest channel": (lambda y, s: y - y.amax(1, keepdim=True), ("amax",)),
    "norm over channels": (lambda y, s: y / torch.linalg.vector_norm(y, dim=1, keepdim=True), ("linalg_vector_norm",)),
    "softmax over channels": (lambda y, s: y.softmax(1), ("softmax",)),
    "running sum": (lambda y, s: y.cumsum(1), ("cumsum",)),
    "layer norm": (lambda y, s: F.layer_norm(y.movedim(1, -1), (8,)).movedim(-1, 1), ("layer_norm",)),
    "rms norm": (lambda y, s: F.rms_norm(y.movedim(1, -1), (8,)).movedim(-1, 1), ("rms_norm",)),
    "one group": (lambda y, s: F.group_norm(y, 1), ("group_norm",)),
    "convolution along channels": (
        lambda y, s: y * F.conv1d(y.mean((2, 3))[:, None], y.new_ones(1, 1, 3), padding=1).mT.unsqueeze(-1),
        ("conv1d along channels",),
    ),
    "product over channels": (
        lambda y, s: torch.einsum("nchw,ncij->nhwij", y, y).mean((3, 4))[:, None] * y, ("einsum",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_channels_are_mixed_by(name: str) -> None:
    middle, operators = MIXING[name]
    coupling = check_exact(captured(around(middle), IMAGE))
    assert inexact(coupling, "a") == operators
    assert inexact(coupling, "b") == ()


def inexact(coupling: Coupling, name: str) -> tuple[str, ...]:
    return next(group.inexact for group in coupling.groups if group.name == name)


def _in_place(y: Tensor, write: Callable[[Tensor], Tensor]) -> Tensor:
    y = y + 1
    write(y)
    return y


@pytest.mark.parametrize("name", FREEZING)
def test_channels_are_frozen_by(name: str) -> None:
    middle, reason = FREEZING[name]
    network = around(middle, cell=nn.LSTM(8, 8, batch_first=True)) if name == "lstm" else around(middle)
    coupling = check_exact(captured(network, IMAGE))
    assert "a" not in prunable(coupling)
    assert prunable(coupling)["b"] == 6
    assert reason in reasons(coupling, "a")


def test_a_reshape_that_cuts_across_axes_freezes() -> None:
    network = around(lambda y, s: y.reshape(-1, 4, 96).sigmoid().reshape(-1, 6, 8, 8), 6, 6)
    assert "cuts across axes" in reasons(check_exact(captured(network, IMAGE)), "a")


def test_a_single_channel_cut_out_stays() -> None:
    coupling = check_exact(captured(around(lambda y, s: y * y[:, 3:4]), IMAGE))
    assert prunable(coupling)["a"] == 7
    assert "a single channel cut out" in reasons(coupling, "a")


@pytest.mark.parametrize("name", ["glu", "pixel shuffle"])
def test_a_single_channel_made_of_several_stays(name: str) -> None:
    one, channels, positions = {
        "glu": (lambda y: F.glu(y, 1), 2, 64),
        "pixel shuffle": (lambda y: F.pixel_shuffle(y, 2), 4, 256),
    }[name]
    network = Net(lambda s, x: s.head(one(s.b(s.a(x).sigmoid())).flatten(1)), a=conv(3, 6), b=conv(6, channels),
                  head=nn.Linear(positions, 3))  # fmt: skip
    coupling = check_exact(captured(network, IMAGE))
    assert prunable(coupling) == {"a": 6}
    assert "a single channel" in reasons(coupling, "b")


@torch.library.custom_op("prunec_tests::mix", mutates_args=())
def mix(x: Tensor) -> Tensor:
    return x - x.roll(1, 1)


@mix.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_unknown_operators_freeze_and_are_named() -> None:
    coupling = check_exact(captured(around(lambda y, s: mix(mix(y))), IMAGE))
    assert coupling.unknown_operators == {"mix": 2}
    assert "operator mix has no rule" in reasons(coupling, "a")
