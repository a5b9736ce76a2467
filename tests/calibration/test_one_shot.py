"""Wanda and SparseGPT: what they see of a layer's inputs, and that it pays on inputs held back."""

import pytest
import torch
from torch import Tensor, nn

from prunec.calibration.one_shot import calibration_inputs, sparsify_by_inputs
from prunec.calibration.reconstruction import input_moments, reconstruct
from prunec.passes.cost import weighted_calls
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.frontend import capture
from prunec.passes.one_shot import from_rows, output_error, sparse_gpt, to_rows, wanda_mask
from prunec.passes.program import Program
from prunec.passes.two_four import Sparsify, is_two_four
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
    energy = ((rows @ input_moments(call, x)) * rows).sum()
    torch.testing.assert_close(energy, layer(x).square().sum().detach())


def test_wanda_weighs_magnitudes_by_the_norm_of_their_inputs() -> None:
    weight = torch.tensor([[4.0, 3, 2, 1]])
    norms = torch.tensor([0.1, 1, 2, 3])
    assert wanda_mask(weight, torch.diag(norms.square())).tolist() == [[False, True, True, False]]
    assert wanda_mask(weight, torch.eye(4)).tolist() == [[True, True, False, False]]


def test_sparse_gpt_moves_what_is_lost_onto_what_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    x = torch.cat([base, base], 1) + 0.01 * torch.randn(500, 4, generator=generator, dtype=torch.float64)
    weight = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    new, mask = sparse_gpt(weight, x.T @ x)
    assert mask.sum() == 2
    torch.testing.assert_close(new[mask].abs(), torch.full((2,), 2.0, dtype=torch.float64), rtol=0.1, atol=0)
    assert output_error(weight, new, x.T @ x) < 1e-3


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
    result = sparsify_by_inputs(program, Sparsify(criterion=criterion), x)  # type: ignore[arg-type]
    layers = [layer for layer in result.stats["layers"] if layer["eligible"]]
    assert [layer["layer"] for layer in layers] == ["0", "3", "8"]
    lower = [layer["output_error"] < layer["output_error_by_magnitude"] for layer in layers]
    assert all(lower[:2])
    assert lower[2] or criterion == "wanda"  # few weights, all of which see much the same
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

    def solve(name: str, weight: Tensor, moments: object) -> Tensor:
        seen.append((name, moments.calibration, moments.held_back))  # type: ignore[attr-defined]
        return torch.zeros_like(weight)

    reconstruct(program, torch.randn(10, 4), 3, frozenset({"0.weight", "1.weight"}), solve)
    bias = layers[0].bias.detach().double()
    assert [name for name, *_ in seen] == ["0.weight", "1.weight"]
    torch.testing.assert_close(seen[1][1], 7 * torch.outer(bias, bias))
    torch.testing.assert_close(seen[1][2], 3 * torch.outer(bias, bias))


def test_calibration_inputs() -> None:
    batches = [(torch.full((4, 2), float(i)), torch.zeros(4)) for i in range(3)]
    assert calibration_inputs(batches, 6)[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert len(calibration_inputs(batches, 100)) == 12


def test_what_can_not_be_done() -> None:
    options = Sparsify(criterion="wanda")
    with pytest.raises(UsageError, match="needs calibration inputs"):
        options.run(network())
    with pytest.raises(UsageError, match="at least 2"):
        sparsify_by_inputs(network(), options, correlated(1, 0))
    two = capture(Net(lambda s, x: s.a(x) + x.sum(), a=nn.Linear(4, 4)), (torch.randn(2, 4),))
    with pytest.raises(NumericMismatchError, match="not finite"):
        sparsify_by_inputs(two, options, torch.full((8, 4), torch.inf))
    with pytest.raises(UsageError, match="criterion"):
        Sparsify(criterion="wandda")  # type: ignore[arg-type]
