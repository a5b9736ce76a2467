"""Wanda and SparseGPT: what they see of a layer's inputs, and that it pays on inputs held back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from prunec.calibration import collect_evidence
from prunec.calibration.one_shot import calibration_inputs, sparsify_by_inputs
from prunec.calibration.reconstruction import LayerInputs, measure_inputs, reconstruct
from prunec.calibration.statistics import reestimate_batchnorm
from prunec.passes.cost import weighted_calls
from prunec.passes.criteria import Evidence, InputMoments, Seen, Statistic, WeightGradient
from prunec.passes.criteria.protocol import Per, Source
from prunec.passes.criteria.statistics import Moments
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.one_shot import from_rows, output_error, sparse_gpt_scores, sparse_gpt_weights, to_rows, wanda_scores
from prunec.passes.patterns.pattern import Pattern
from prunec.passes.program import Program
from prunec.passes.sparsify import Sparsify
from prunec.passes.two_four import is_two_four, two_four_mask
from tests.passes.checks import Net

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(8, 5, bias=False), (6, 8)),
    "linear over tokens": (nn.Linear(8, 5, bias=False), (6, 3, 8)),
    "conv1d": (nn.Conv1d(4, 5, 3, stride=2, padding=1, bias=False), (6, 4, 9)),
    "conv2d": (nn.Conv2d(4, 5, (3, 2), stride=(1, 2), padding=(2, 0), dilation=2, bias=False), (6, 4, 9, 8)),
    "same": (nn.Conv2d(4, 5, 3, padding="same", bias=False), (6, 4, 5, 6)),
    "conv3d": (nn.Conv3d(4, 5, 2, padding=1, bias=False), (6, 4, 3, 4, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_moments_give_the_energy_of_the_outputs(name: str) -> None:
    torch.manual_seed(0)
    layer, shape = LAYERS[name]
    layer = layer.double()
    program = capture(layer, (torch.randn(shape, dtype=torch.float64),))
    call, weight_name = weighted_calls(program.graph)[0]
    x = torch.randn(shape, dtype=torch.float64)
    weight = program.tensors()[weight_name].detach()
    rows = to_rows(weight)
    assert torch.equal(from_rows(rows, weight), weight)
    moments = measure_inputs(call, weight, [x], [InputMoments()])[InputMoments()]
    energy = ((rows @ moments.raw) * rows).sum()
    outputs = layer(x).movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1).detach()
    torch.testing.assert_close(energy, outputs.square().sum())
    torch.testing.assert_close(rows @ moments.mean, outputs.mean(1))
    assert moments.count == outputs.shape[1]


def test_wanda_weighs_magnitudes_by_the_norm_of_their_inputs() -> None:
    weight = torch.tensor([[4.0, 3, 2, 1]])
    norms = torch.tensor([0.1, 1, 2, 3])
    torch.testing.assert_close(wanda_scores(weight, torch.diag(norms.square())), weight * norms)
    assert two_four_mask(wanda_scores(weight, torch.eye(4))).tolist() == [[True, True, False, False]]


def test_sparse_gpt_moves_what_is_lost_onto_what_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    x = torch.cat([base, base], 1) + 0.01 * torch.randn(500, 4, generator=generator, dtype=torch.float64)
    weight = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    mask = two_four_mask(sparse_gpt_scores(weight, x.T @ x, 0.01, Pattern.parse("2:4")))
    new = sparse_gpt_weights(weight, x.T @ x, 0.01, mask)
    assert mask.sum() == 2
    torch.testing.assert_close(new[mask].abs(), torch.full((2,), 2.0, dtype=torch.float64), rtol=0.1, atol=0)
    assert output_error(weight, new, Moments(500, x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)))) < 1e-3


def correlated(samples: int, seed: int) -> Tensor:
    """Images whose channels depend on each other and differ in scale, as a network's do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(8, 3, generator=torch.Generator().manual_seed(99)) * torch.linspace(0.2, 2, 8)[:, None]
    noise = 0.1 * torch.randn(samples, 8, 12, 12, generator=generator)
    return torch.einsum("dc,nchw->ndhw", mixing, torch.randn(samples, 3, 12, 12, generator=generator)) + noise


def network() -> Program:
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(),
        nn.Conv2d(16, 8, 1, groups=2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    return capture(layers.eval(), (torch.randn(2, 8, 12, 12),))


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_less_is_lost_than_by_magnitude_on_inputs_held_back(criterion: str) -> None:
    program, x = network(), correlated(160, 0)
    before = {name: tensor.clone() for name, tensor in program.tensors().items()}
    result = sparsify_by_inputs(program, Sparsify(criterion=criterion), x)
    layers = [layer for layer in result.stats["layers"] if layer["eligible"]]
    assert [layer["layer"] for layer in layers] == ["0", "3", "8"]
    lower = [layer["output_error"] < layer["output_error_by_magnitude"] for layer in layers]
    assert all(lower)
    tensors = result.program.tensors()
    for name, mask in result.program.masks.items():
        assert is_two_four(tensors[name])
        assert not tensors[name][~mask].any()
        changed = bool((tensors[name] != before[name] * mask).any())
        assert changed == (criterion == "sparsegpt")
    assert all(torch.equal(before[name], tensor) for name, tensor in program.tensors().items())
    if criterion == "sparsegpt":
        fresh, magnitude = correlated(64, 5), Sparsify().run(program).program
        with torch.no_grad():
            dense = program(fresh)
            errors = [(p(fresh) - dense).square().sum() for p in (result.program, magnitude)]
        assert errors[0] < errors[1] / 2


def test_statistics_follow_the_layers_replaced_before() -> None:
    """With the first layer zeroed, the second one sees its bias only."""
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    program = capture(layers.eval(), (torch.randn(2, 4),))
    seen = []

    def solve(name: str, weight: Tensor, inputs: LayerInputs) -> tuple[Tensor, None]:
        seen.append((name, inputs.moments.raw, inputs.held_back.raw))
        return torch.zeros_like(weight), None

    reconstruct(program, torch.randn(10, 4), 3, frozenset({"0.weight", "1.weight"}), (), solve)
    bias = layers[0].bias.detach().double()
    assert [name for name, *_ in seen] == ["0.weight", "1.weight"]
    torch.testing.assert_close(seen[1][1], 7 * torch.outer(bias, bias))
    torch.testing.assert_close(seen[1][2], 3 * torch.outer(bias, bias))


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_bias_makes_up_for_what_is_lost_in_mean(has_bias: bool) -> None:
    """Inputs with large means and small deviations: nearly all that masking loses is a constant."""
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 4, 3, padding=0, bias=has_bias)
    program = capture(conv.eval(), (torch.randn(2, 8, 6, 6),))
    x = 5 + 0.1 * torch.randn(80, 8, 6, 6)
    result = sparsify_by_inputs(program, Sparsify(criterion="wanda"), x)
    (layer,) = (layer for layer in result.stats["layers"] if layer["eligible"])
    with torch.no_grad():
        dense, sparse = program(x[60:]), result.program(x[60:])
    products = dense if conv.bias is None else dense - conv.bias.detach()[:, None, None]
    error = float((dense - sparse).square().sum() / products.square().sum())
    assert layer["output_error"] == pytest.approx(error, rel=1e-2)
    if not has_bias:
        assert error > 0.05
    else:
        assert error < 1e-3
        assert layer["output_error_by_magnitude_with_bias"] < 1e-3
        assert layer["output_error_by_magnitude"] > 0.05


def normed() -> nn.Sequential:
    """Layers with batch norms; the first can't be 2:4, and one has both a bias and a norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4),
    )  # fmt: skip


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_batch_norms_behind_masked_layers_are_measured_anew(criterion: str) -> None:
    """Else what masking takes from a channel's spread would make it look small to the layers behind."""
    x = torch.randn(80, 3, 9, 9)
    program = reestimate_batchnorm(capture(normed().eval(), (x[:2],)), x[:60]).program
    result = sparsify_by_inputs(program, Sparsify(criterion=criterion), x).program
    measured = reestimate_batchnorm(result, x[:60]).program.tensors()
    before, tensors = program.tensors(), result.tensors()
    for statistic in ("running_mean", "running_var"):
        assert torch.equal(tensors[f"1.{statistic}"], before[f"1.{statistic}"])
        for norm in (4, 7, 10):
            torch.testing.assert_close(tensors[f"{norm}.{statistic}"], measured[f"{norm}.{statistic}"])
    assert not torch.allclose(tensors["4.running_var"], before["4.running_var"], rtol=1e-2)


class Shared(nn.Module):
    """One layer for both halves of the channels, each with a batch norm of its own, or the first alone."""

    def __init__(self, norms: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 16, 3, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(norms))

    def forward(self, x: Tensor) -> Tensor:
        halves = [self.layer(x[:, :8]), self.layer(x[:, 8:])]
        return torch.cat([*(norm(y) for norm, y in zip(self.norms, halves, strict=False)), *halves[len(self.norms) :]])


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_batch_norms_behind_all_calls_of_a_masked_layer_are_measured_anew(criterion: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(80, 16, 6, 6) * torch.rand(16, 1, 1) + 0.3
    program = reestimate_batchnorm(capture(Shared(2).eval(), (x[:2],)), x[:60]).program
    tensors = sparsify_by_inputs(program, Sparsify(criterion=criterion), x).program.tensors()
    for norm, half in enumerate((x[:60, :8], x[:60, 8:])):
        outputs = nn.functional.conv2d(half, tensors["layer.weight"])
        torch.testing.assert_close(tensors[f"norms.{norm}.running_mean"], outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norms", [0, 1, 2])
def test_a_mean_is_made_up_for_where_all_calls_have_a_batch_norm(norms: int) -> None:
    x = torch.randn(8, 16, 6, 6)
    seen: list[bool] = []

    def keep(name: str, weight: Tensor, inputs: LayerInputs) -> tuple[Tensor, None]:
        seen.append(inputs.shiftable)
        return weight, None

    reconstruct(capture(Shared(norms).eval(), (x[:2],)), x, 2, frozenset({"layer.weight"}), (), keep)
    assert seen == [norms == 2]


def test_what_is_not_masked_keeps_its_batch_norms() -> None:
    program = capture(normed().eval(), (torch.randn(2, 3, 9, 9),))
    result = sparsify_by_inputs(program, Sparsify(criterion="wanda", ignore=("*",)), torch.randn(8, 3, 9, 9)).program
    assert all(torch.equal(tensor, program.tensors()[name]) for name, tensor in result.tensors().items())


def test_a_batch_norm_of_several_calls_stays_as_it_is() -> None:
    net = Net(lambda s, x: s.norm(s.b(s.norm(s.a(x)))), a=nn.Linear(4, 4), b=nn.Linear(4, 4), norm=nn.BatchNorm1d(4))
    program = capture(net.eval(), (torch.randn(2, 4),))
    result = sparsify_by_inputs(program, Sparsify(criterion="wanda"), 3 + torch.randn(40, 4)).program
    assert torch.equal(result.tensors()["norm.running_var"], torch.ones(4))


def test_one_value_per_channel_has_no_variance() -> None:
    program = capture(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), (torch.randn(2, 4),))
    with pytest.raises(UsageError, match="one value per channel"):
        sparsify_by_inputs(program, Sparsify(criterion="wanda"), torch.randn(2, 4))


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_masking_a_deep_network_leaves_its_spread(criterion: str) -> None:
    """With batch norms of the dense network every masked layer would yield less, and the last ones nearly nothing."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        *(nn.Sequential(nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()) for _ in range(12))
    )
    x = torch.randn(400, 32)
    program = reestimate_batchnorm(capture(layers.eval(), (x[:2],)), x).program
    with torch.no_grad():
        dense, kept = (float(p(x).var(0).mean()) for p in (program, Sparsify().run(program).program))
        sparse = float(sparsify_by_inputs(program, Sparsify(criterion=criterion), x).program(x).var(0).mean())
    assert kept < 0.5 * dense
    assert sparse == pytest.approx(dense, rel=0.2)


def test_moments_keep_small_deviations_from_large_means() -> None:
    program = capture(nn.Linear(4, 2), (torch.randn(2, 4),))
    call, name = weighted_calls(program.graph)[0]
    weight = program.tensors()[name]
    x = 1000 + 0.01 * torch.randn(5000, 4)
    centred = measure_inputs(call, weight, [x], [InputMoments()])[InputMoments()].centred
    exact = (x.double() - x.double().mean(0)).T @ (x.double() - x.double().mean(0))
    torch.testing.assert_close(centred, exact, rtol=1e-3, atol=1e-3)


def test_a_bias_of_several_calls_stays_as_it_is() -> None:
    bias = nn.Parameter(torch.ones(4))
    net = Net(lambda s, x: nn.functional.linear(nn.functional.linear(x, s.a.weight, s.bias), s.b.weight, s.bias),
              a=nn.Linear(4, 4), b=nn.Linear(4, 4))  # fmt: skip
    net.bias = bias
    program = capture(net.eval(), (torch.randn(2, 4),))
    result = sparsify_by_inputs(program, Sparsify(criterion="wanda"), 3 + torch.randn(40, 4))
    assert torch.equal(result.program.tensors()["bias"], bias.detach())


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_tokens_flattened_into_the_batch_are_of_the_same_samples(criterion: str) -> None:
    """The first axis of a layer's input isn't that of the samples."""

    def forward(flat: bool) -> Callable[[Net, Tensor], Tensor]:
        def function(s: Net, x: Tensor) -> Tensor:
            h = s.first(x).relu()
            h = s.second(h.flatten(0, 1)).unflatten(0, h.shape[:2]) if flat else s.second(h)
            return s.head(h.relu().mean(1))  # type: ignore[no-any-return]

        return function

    torch.manual_seed(0)
    layers = {"first": nn.Linear(8, 16), "second": nn.Linear(16, 16), "head": nn.Linear(16, 4)}
    x = torch.randn(64, 6, 8) * torch.linspace(0.1, 3, 64)[:, None, None]
    masks = []
    for flat in (False, True):
        program = capture(Net(forward(flat), **layers).eval(), (x[:2],))
        masks.append(sparsify_by_inputs(program, Sparsify(criterion=criterion), x).program.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_attention_with_tokens_before_samples() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    program = capture(Net(lambda s, x: s.a(x, x, x)[0].mean(1), a=attention).eval(), (torch.randn(2, 5, 16),))
    result = sparsify_by_inputs(program, Sparsify(criterion="sparsegpt"), torch.randn(32, 5, 16))
    assert set(result.program.masks) == {"a.in_proj_weight", "a.out_proj.weight"}


def test_criteria_of_inputs_get_what_they_ask_for_and_evidence_besides() -> None:
    @dataclass(frozen=True)
    class Rows:
        """Number of rows seen: 3 places of 9 samples, whatever the batch's parts."""

        looks_at: ClassVar[Source] = "inputs"
        per: ClassVar[Per] = "batch"

        def update(self, state: int | None, seen: Seen) -> int:
            return (state or 0) + len(seen.value)

        def result(self, state: int) -> int:
            return state

    @dataclass(frozen=True)
    class Counting:
        name: ClassVar[str] = "counting"
        needs: ClassVar[frozenset[str]] = frozenset({"inputs", "gradients"})
        statistics: ClassVar[tuple[Statistic, ...]] = (Rows(), WeightGradient())

        def score_elements(self, weight: Tensor, evidence: Evidence) -> Tensor:
            assert evidence.of(Rows()) == 27
            assert evidence.mean_restored
            return evidence.of(WeightGradient())  # type: ignore[no-any-return]

    program = capture(Net(lambda s, x: s.a(x), a=nn.Linear(8, 4)).eval(), (torch.randn(2, 3, 8),))
    options, x = Sparsify(criterion=Counting()), torch.randn(12, 3, 8)
    with pytest.raises(UsageError, match="counting needs gradients on data"):
        sparsify_by_inputs(program, options, x)
    evidence = collect_evidence(program, [Counting()], [(x, x[..., :4])], nn.functional.mse_loss)
    mask = sparsify_by_inputs(program, options, x, evidence).program.masks["a.weight"]
    assert torch.equal(mask, two_four_mask(evidence.of(WeightGradient(), "a.weight")))


def test_calibration_inputs() -> None:
    batches = [(torch.full((4, 2), float(i)), torch.zeros(4)) for i in range(3)]
    assert calibration_inputs(batches, 6)[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert len(calibration_inputs(batches, 100)) == 12


def test_what_can_not_be_done() -> None:
    options = Sparsify(criterion="wanda")
    with pytest.raises(UsageError, match="wanda needs inputs on data"):
        options.run(network())
    with pytest.raises(UsageError, match="at least 2"):
        sparsify_by_inputs(network(), options, correlated(1, 0))
    two = capture(Net(lambda s, x: s.a(x) + x.sum(), a=nn.Linear(4, 4)), (torch.randn(2, 4),))
    with pytest.raises(NumericMismatchError, match="not finite"):
        sparsify_by_inputs(two, options, torch.full((8, 4), torch.inf))
    with pytest.raises(UsageError, match="criterion"):
        Sparsify(criterion="wandda")


class FlatTokens(nn.Module):
    """Tokens on an axis of their own, or flattened with the batch of 4 that the network then fixes."""

    def __init__(self, batch: int | None) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.batch = batch

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        y = self.b(y if self.batch is None else y.reshape(self.batch * 3, 16)).relu()
        return self.c((y if self.batch is None else y.reshape(self.batch, 3, 16)).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_a_network_that_fixes_its_batch_sees_the_same_samples(criterion: str) -> None:
    x = torch.randn(32, 3, 8, generator=torch.Generator().manual_seed(0))
    masks = []
    for batch in (None, 4):
        torch.manual_seed(0)
        program = capture(FlatTokens(batch).eval(), (x[:4],))
        assert program.batch_is_dynamic == (batch is None)
        masks.append(sparsify_by_inputs(program, Sparsify(criterion=criterion), x).program.masks)
    assert masks[0].keys() == masks[1].keys()
    assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())
    with pytest.raises(UsageError, match="at least 8"):
        sparsify_by_inputs(program, Sparsify(criterion=criterion), x[:7])


def test_convolutions_of_one_sample_without_a_batch() -> None:
    network = Net(
        lambda s, x: s.b(s.a(x[0])[None].mean(2)) + 0 * x.mean((1, 2))[:, None],
        a=nn.Conv1d(8, 16, 3),
        b=nn.Linear(16, 3),
    )
    program = capture(network.eval(), (torch.randn(2, 8, 6),))
    assert sparsify_by_inputs(program, Sparsify(criterion="wanda"), torch.randn(8, 8, 6)).program.masks.keys() >= {
        "a.weight"
    }
