"""The hook "quantize": what it rounds in training is what calibration rounds; the network bears it and has no trace."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunec.calibration.data import Data
from prunec.compiler.recovery.hooks import load_hooks
from prunec.compiler.recovery.quantize_hook import Quantize
from prunec.compiler.recovery.recover import EpochRecord, StateOptions
from prunec.passes.errors import UsageError
from prunec.passes.frontend import capture
from prunec.passes.graphs import calls
from prunec.passes.program import Program
from prunec.passes.quantization.attention import decompose_attention
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.grids import Form, Range
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import quantize
from prunec.passes.quantization.training_grids import round_in_training
from prunec.passes.sparsify import Sparsify
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import cifar_resnet
from tests.architectures.vit import ViT
from tests.passes.quantization.observed import ranges_of
from tests.recovery.networks import OPTIONS, network, run, same, state


def plain() -> Program:
    return capture(network(dropout=0.0), (torch.zeros(2, 1, 8, 8),))


@torch.no_grad()
def accuracy(program: Program, data: Data, form: Form = "symmetric") -> float:
    """Test accuracy of a network that is quantized by min-max ranges of its training inputs."""
    folded = fold_batch_norms(program.inference()).program
    inputs, _ = next(data.train.batches(200, epoch=0, seed=0))
    placement = place(folded)
    quantized = quantize(folded, placement, ranges_of(folded, placement, inputs), form)
    hits = [(quantized(x).argmax(1) == labels).float() for x, labels in data.test.batches(200)]
    return float(torch.cat(hits).mean())


@pytest.mark.parametrize("form", ["symmetric", "affine"])
@pytest.mark.parametrize("network_", [cifar_resnet(8), ViT(16, 4, 24, 2, 3, 5)], ids=["resnet", "vit"])
@torch.no_grad()
def test_what_training_rounds_is_what_is_rounded_after_folding(network_: Any, form: Form) -> None:
    program = capture(redraw_(network_.eval(), 0), (torch.randn(4, 3, 16, 16),))
    training_form = program.with_tensors(program.tensors()).train()
    grids = round_in_training(training_form, ("stem",), form, momentum=0.5)
    training_form.module.recompile()
    for seed in range(3):
        training_form(torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))
    folded = fold_batch_norms(decompose_attention(program).program).program
    assert grids.placement == place(folded, ("stem",))
    ranges: dict[str, Range] = {family: moving.range for family, moving in grids.ranges.items()}
    expected = quantize(folded, grids.placement, ranges, form)
    x = torch.randn(16, 3, 16, 16)
    training_form.module.eval()
    actual, right = training_form.eval()(x), expected(x)
    apart = (actual - right).abs() / right.abs().max()
    assert float(apart.quantile(0.5)) < 1e-4, "but for values that fall between two numbers of a grid"
    assert float((right - folded(x)).abs().max() / right.abs().max()) > 1e-3, "grids make a difference"


@torch.no_grad()
def test_training_rounds_to_fp8_nearly_as_it_is_rounded_after_folding() -> None:
    """Scales are numbers of float16, which those of folded weights are the next ones of."""
    program = capture(
        redraw_(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval(), 0), (torch.randn(4, 3, 9, 9),)
    )
    training_form = program.with_tensors(program.tensors()).train()
    grids = round_in_training(training_form, (), "float8", momentum=0.5)
    training_form.module.recompile()
    training_form(torch.randn(8, 3, 9, 9, generator=torch.Generator().manual_seed(0)))
    folded = fold_batch_norms(program).program
    ranges: dict[str, Range] = {family: moving.range for family, moving in grids.ranges.items()}
    x = torch.randn(16, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    training_form.module.eval()
    actual, right, exact = training_form.eval()(x), quantize(folded, grids.placement, ranges, "float8")(x), folded(x)
    assert 0 < float((actual - right).norm()) < 0.3 * float((right - exact).norm())


def test_ranges_are_moving_averages() -> None:
    form = plain().train()
    grids = round_in_training(form, (), "symmetric", momentum=0.75)
    form.module.recompile()
    form(torch.full((2, 1, 8, 8), 2.0))
    form(torch.full((2, 1, 8, 8), 6.0))
    (moving,) = [each for family, each in grids.ranges.items() if family == "input_1"]
    assert moving.range == Range(3.0, 3.0)


def test_the_network_has_no_trace_of_it_but_other_weights(data: Data) -> None:
    program = plain()
    result = run(program, data, replace(OPTIONS, hooks="quantize"))
    assert str(result.program.graph) == str(program.graph)
    assert state(result.program).keys() == state(program).keys()
    assert not same(state(result.program), state(run(program, data, OPTIONS).program)), "it was trained with rounding"
    (fact,) = result.hooks
    assert fact.text == "quantize"
    assert fact.figures == {"layers_on_grids": 3, "layers": 3}
    ranges: Any = fact.decided["ranges"]
    assert len(ranges) == 3
    assert all(low <= high and high > 0 for low, high in ranges.values())
    assert result.curve[-1].test > 0.8


@torch.no_grad()
def spread(program: Program, factor: float) -> Program:
    """The same function with one channel far wider than the others, which leaves those few steps of the grid."""
    tensors = {name: tensor.clone() for name, tensor in program.tensors().items()}
    for name in ("1.weight", "1.bias"):
        tensors[name][0] *= factor
    tensors["3.weight"][:, 0] /= factor
    return program.with_tensors(
        {name: torch.nn.Parameter(t) if name in program.parameters() else t for name, t in tensors.items()}
    )


def test_it_mends_what_rounding_breaks(data: Data) -> None:
    """After as much training without it the network is wrong far more often once it is quantized."""
    trained = spread(run(plain(), data, replace(OPTIONS, epochs=6)).program, 250.0)
    options = replace(
        OPTIONS, epochs=4, schedule="constant:0.004", keep="last", optimizer="adamw", weight_decay=0.0, momentum=None
    )
    without = run(trained, data, options)
    with_it = run(trained, data, replace(options, hooks="quantize{momentum=0.9}"))
    assert accuracy(without.program, data) < without.curve[-1].test - 0.1, "rounding breaks something"
    assert accuracy(with_it.program, data) > accuracy(without.program, data) + 0.1


def test_masks_of_two_in_four_hold(data: Data) -> None:
    sparse = Sparsify().run(plain()).program
    result = run(sparse, data, replace(OPTIONS, hooks="quantize{form=affine}"))
    assert result.program.masks.keys() == sparse.masks.keys() != set()
    for name, mask in result.program.masks.items():
        assert not result.program.parameters()[name][~mask].any()
    assert accuracy(result.program, data, "affine") > 0.7


class Stopped(Exception):
    pass


def test_it_resumes_to_the_bit(data: Data, tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=3, hooks="quantize")
    whole = run(plain(), data, options)

    def stop(record: EpochRecord, _: Program) -> None:
        if record.epoch == 1:
            raise Stopped

    file = StateOptions(tmp_path / "state.pt", resume=True, every_steps=5)
    with pytest.raises(Stopped):
        run(plain(), data, options, state=file, progress=stop)
    resumed = run(plain(), data, options, state=file)
    assert resumed.resumed
    assert same(state(whole.program), state(resumed.program))
    assert whole.hooks[0].decided == resumed.hooks[0].decided


def test_kept_layers_read_what_they_read_before() -> None:
    form = plain().train()
    round_in_training(form, ("3", "classifier"), "symmetric", 0.9)
    (first, second) = calls(form.graph, "conv2d")
    (linear,) = calls(form.graph, "linear")
    rounded: dict[Any, list[bool]] = {
        node: [source.op == "call_module" for source in node.all_input_nodes[:2]] for node in (first, second, linear)
    }
    assert rounded == {first: [True, True], second: [False, False], linear: [False, False]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quantize{momentum=1}", "momentum must be at least 0 and below 1, got 1"),
        ("quantize{form=skewed}", "form"),
        ('quantize{keep=["nowhere*"]}', "nowhere"),
        ('quantize{keep=["*"]}', "no layer that can compute on grids"),
    ],
)
def test_what_it_can_t_do_is_refused(text: str, words: str, data: Data) -> None:
    with pytest.raises(UsageError, match=words):
        run(plain(), data, replace(OPTIONS, hooks=text))


def test_its_text_is_read() -> None:
    assert load_hooks("quantize{form=affine,keep=[stem]}") == (Quantize("affine", ("stem",)),)
