"""Learned rounding and bias correction, against what they promise of layers and of whole networks."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.nn import functional as F

from prunec.calibration.quantization.bias_correction import correct_biases
from prunec.calibration.quantization.learned_rounding import LearnedRounding
from prunec.calibration.quantization.observing import observe
from prunec.calibration.quantization.quantized_layers import quantized_layers
from prunec.calibration.quantization.range_methods import RangeMethod, ranges_of
from prunec.passes import capture
from prunec.passes.errors import UsageError
from prunec.passes.graphs import arguments, copied_graph, operator_name
from prunec.passes.operators import WEIGHTED
from prunec.passes.program import Program
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.equalization import equalize
from prunec.passes.quantization.grids import WEIGHT_LIMIT, Form, Range, weight_scales
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import quantize, without_quantizers

SHORT = LearnedRounding(steps=150, places=8, batch=128, damping=0.0)


class Mixed(nn.Module):
    """Dense, grouped, depthwise and strided convolutions, a branch, and linear layers over places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.grouped, self.deep = nn.Conv2d(8, 12, 3, groups=2, stride=2), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.side, self.up = nn.Conv2d(8, 12, 1, stride=2, bias=False), nn.ConvTranspose2d(12, 8, 2)
        self.places, self.head = nn.Linear(8, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.first(x)))
        x = F.relu(self.deep(F.relu6(self.grouped(x)))) + self.side(x[:, :, 1:-1, 1:-1])
        x = self.up(x).permute(0, 2, 3, 1)
        return self.head(F.relu(self.places(x)).mean((1, 2)))


def images(count: int, seed: int = 1) -> Tensor:
    """Images of a few patterns, as learned rounding lives by correlations, and noise."""
    patterns = torch.randn(6, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    shares, noise = torch.randn(count, 6, generator=generator), torch.randn(count, 3, 10, 10, generator=generator)
    return (torch.einsum("np,pchw->nchw", shares, patterns) + 0.3 * noise) / 2


@pytest.fixture(scope="module")
def reference() -> Program:
    torch.manual_seed(0)
    program = fold_batch_norms(capture(Mixed().eval(), (images(2),))).program
    return equalize(program).program


def quantized_of(program: Program, form: Form = "symmetric", part: float = 1.0) -> Program:
    """A quantized program whose grids hold a part of each range."""
    placement = place(program)
    found = ranges_of(placement, observe(program, placement, [images(32)]), RangeMethod("min-max"), form)
    return quantize(program, placement, {name: Range(part * r.low, part * r.high) for name, r in found.items()}, form)


def whole_numbers(program: Program) -> dict[str, Tensor]:
    """Every quantized layer's weight in steps of its grid."""
    tensors, found = program.tensors(), {}
    for layer in quantized_layers(program.graph):
        bound, weight = arguments(layer.quantizer), tensors[layer.weight].detach()
        shape = [-1 if dim == bound["axis"] else 1 for dim in range(weight.ndim)]
        found[layer.weight] = weight.double() / tensors[str(bound["scale"].target)].double().view(shape)
    return found


@pytest.mark.parametrize("form", ["symmetric", "affine"])
def test_learned_weights_lie_on_grids_that_are_found_again(reference: Program, form: Form) -> None:
    before = quantized_of(reference, form)
    result = SHORT.learn(reference, before, images(32))
    taken = [fact["layer"] for fact in result.stats["layers"] if fact["taken"]]
    assert len(taken) >= 3
    old, new = whole_numbers(before), whole_numbers(result.program)
    moved = 0
    for name in old:
        if name.rpartition(".")[0] in taken:
            torch.testing.assert_close(new[name], new[name].round(), rtol=0, atol=1e-3)
            assert float((new[name] - old[name]).abs().max()) < 1.001
            moved += int((new[name].round() != old[name].round()).sum())
        else:
            assert torch.equal(new[name], old[name])
    assert moved > 10
    floating = without_quantizers(result.program)
    placement = place(floating)
    found = ranges_of(placement, observe(reference, placement, [images(32)]), RangeMethod("min-max"), form)
    again = quantize(floating, placement, found, form)
    for name, steps in whole_numbers(again).items():
        assert torch.equal(steps.round(), new[name].round()), name
    with torch.no_grad():
        torch.testing.assert_close(again(images(8, 2)), result.program(images(8, 2)), rtol=1e-4, atol=1e-5)


def test_learning_brings_layers_and_the_network_closer(reference: Program) -> None:
    before = quantized_of(reference)
    result = SHORT.learn(reference, before, images(32))
    facts = result.stats["layers"]
    assert [fact["taken"] for fact in facts] == [fact["learned"] < fact["nearest"] for fact in facts]
    # "up" is a transposed convolution.
    assert {fact["layer"] for fact in facts} == {"first", "grouped", "deep", "side", "places", "head"}
    with torch.no_grad():
        x = images(64, 3)
        errors = [float((program(x) - reference(x)).square().mean()) for program in (before, result.program)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("biases", ["as they are", "corrected"])
def test_layers_are_held_against_their_unrounded_weights_on_what_the_learned_ones_before_them_yield(
    reference: Program, biases: str
) -> None:
    before, x = quantized_of(reference), images(32)
    before = correct_biases(reference, before, x).program if biases == "corrected" else before
    options = LearnedRounding(steps=60, places=64, batch=128, held_back=0.5)
    result = options.learn(reference, before, x)
    (fact,) = (fact for fact in result.stats["layers"] if fact["layer"] == "head")
    (call,) = (each.call.name for each in quantized_layers(result.program.graph) if each.name == "head")
    with torch.no_grad():
        wanted = with_exact_layer(reference, result.program, reference, call)(x[16:])
        given = result.program(x[16:])
    error = fact["learned"] if fact["taken"] else fact["nearest"]
    assert float((given - wanted).square().mean() / wanted.square().mean()) == pytest.approx(error, rel=1e-3)


def test_what_is_no_better_on_samples_held_back_is_not_taken(reference: Program) -> None:
    before = quantized_of(reference)
    for options in (LearnedRounding(steps=0, places=8), replace(SHORT, damping=1e6)):
        result = options.learn(reference, before, images(32))
        assert not result.modified
        assert all(torch.equal(tensor, before.tensors()[name]) for name, tensor in result.program.tensors().items())


def test_one_seed_gives_the_same_weights(reference: Program) -> None:
    before, options = quantized_of(reference), LearnedRounding(steps=20, places=4, batch=32, seed=7)
    runs = [options.learn(reference, before, images(16)).program.tensors() for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_zeros_and_masks_stay(reference: Program) -> None:
    pruned = reference.clone()
    weight = pruned.tensors()["deep.weight"].detach()
    mask = (torch.arange(9).view(1, 1, 3, 3) % 4 < 2).expand_as(weight)
    weight.mul_(mask)
    pruned.masks["deep.weight"] = mask.clone()
    result = SHORT.learn(pruned, quantized_of(pruned), images(32)).program
    assert bool((result.tensors()["deep.weight"][~mask] == 0).all())
    assert torch.equal(result.masks["deep.weight"], mask)


def test_the_largest_of_each_channel_stays(reference: Program) -> None:
    result = SHORT.learn(reference, quantized_of(reference), images(32)).program
    for name, steps in whole_numbers(result).items():
        axis = 1 if name == "up.weight" else 0
        assert bool((steps.round().abs().transpose(0, axis).flatten(1).amax(1) == WEIGHT_LIMIT).all())
        scales = weight_scales(result.tensors()[name], axis)
        assert len(scales) == steps.shape[axis]


def test_too_few_samples_are_an_error() -> None:
    program = capture(nn.Sequential(nn.Linear(4, 4)).eval(), (torch.randn(2, 4),))
    placement = place(program)
    found = ranges_of(placement, observe(program, placement, [torch.randn(2, 4)]), RangeMethod("min-max"), "symmetric")
    with pytest.raises(UsageError, match="judge"):
        SHORT.learn(program, quantize(program, placement, found, "symmetric"), torch.randn(1, 4))


def means(program: Program, x: Tensor, names: set[str]) -> dict[str, Tensor]:
    """The means of calls' outputs, by channel."""
    found = {}

    class Recording(Interpreter):
        def run_node(self, n: Node) -> object:
            value = super().run_node(n)
            if n.name in names:
                axis = value.ndim - WEIGHTED[operator_name(n.target)].spatial_dims - 1
                found[n.name] = value.movedim(axis, 0).flatten(1).double().mean(1)
            return value

    with torch.no_grad():
        Recording(program.module).run(x)
    return found


def with_exact_layer(reference: Program, program: Program, biases: Program, call: str) -> Program:
    """A quantized program in which one layer has its unrounded weight, and the bias of another program."""
    graph, tensors = copied_graph(program.graph), program.tensors()
    (layer,) = (each for each in quantized_layers(graph) if each.call.name == call)
    layer.quantizer.replace_all_uses_with(arguments(layer.quantizer)["self"])
    bias = str(arguments(layer.call)["bias"].target)
    old = biases.tensors().get(bias, torch.zeros_like(tensors[bias]))
    return program.with_tensors({**tensors, bias: nn.Parameter(old)}, graph)


@pytest.mark.parametrize(("form", "part"), [("symmetric", 1.0), ("symmetric", 0.5), ("float8", 1.0)])
def test_corrected_layers_yield_the_mean_of_unrounded_weights(reference: Program, form: Form, part: float) -> None:
    before, x = quantized_of(reference, form, part), images(24)
    result = correct_biases(reference, before, x)
    names = {layer.call.name for layer in quantized_layers(before.graph)}
    assert len(names) == len(result.stats["layers"]) == 7
    old, new = means(before, x, names), means(result.program, x, names)
    for name in names:
        exact = means(with_exact_layer(reference, result.program, before, name), x, {name})
        torch.testing.assert_close(new[name], exact[name], rtol=1e-4, atol=1e-5)
    assert max(float((old[name] - new[name]).abs().max()) for name in names) > 1e-4


def test_layers_without_a_bias_get_one(reference: Program) -> None:
    before = quantized_of(reference)
    after = correct_biases(reference, before, images(24)).program
    added = after.parameters().keys() - before.parameters().keys()
    assert added == {"side.bias", "places.bias"}
    assert all(
        torch.equal(tensor, after.tensors()[name]) for name, tensor in before.tensors().items() if "weight" in name
    )
    assert before.graph.find_nodes(op="get_attr", target="side.bias") == []


def test_an_exact_program_needs_no_correction() -> None:
    program = capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), (torch.randn(2, 4),))
    result = correct_biases(program, program, torch.randn(8, 4))
    assert not result.modified
    assert result.stats == {"layers": []}


def test_fp8_has_no_whole_numbers_to_choose_between(reference: Program) -> None:
    with pytest.raises(UsageError, match="these grids have others"):
        SHORT.learn(reference, quantized_of(reference, "float8"), images(8))


class Tied(nn.Module):
    """A classifier of tokens whose weight is the table of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden, self.last = nn.Embedding(24, 16), nn.Linear(16, 16), nn.Linear(16, 24, bias=False)
        self.last.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.last(self.hidden(self.table(ids)).relu())
        return logits


def test_weights_that_others_read_too_keep_their_rounding() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 24, (32, 6))
    program = capture(Tied().eval(), (ids[:2],))
    placement = place(program)
    ranges = ranges_of(placement, observe(program, placement, [ids]), RangeMethod("min-max"), "symmetric")
    result = SHORT.learn(program, quantize(program, placement, ranges, "symmetric"), ids)
    assert [fact["layer"] for fact in result.stats["layers"]] == ["hidden"]
    for name, tensor in result.program.tensors().items():
        if name in ("table.weight", "last.weight"):
            assert torch.equal(tensor, program.tensors()[name])
