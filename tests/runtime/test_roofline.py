"""Rooflines by hand: a layer's operations against the peak rate, its bytes against the bandwidth."""

import pytest
import torch
from torch import nn

from prunec.passes import Program, Sparsify, capture
from prunec.passes.cost import Layer
from prunec.runtime.roofline import predict_layer, predict_program
from prunec.runtime.target import Target

A100 = Target.parse("a100-2:4")  # 312e12 dense fp16 operations and 2039e9 bytes per second
#: 4096 inputs, 4096 outputs, over 1 sample: 2 * 4096^2 operations, 2 * 4096^2 bytes of weights.
LINEAR = Layer("fc", "linear", "fc.weight", (4096, 4096), 4096**2, 1, 4096, 4096)


def test_one_sample_of_a_linear_layer_is_bound_by_its_weights() -> None:
    found = predict_layer(LINEAR, A100, batch=1, two_four=False)
    assert found is not None
    assert found.bound == "memory"
    assert found.ms == pytest.approx((2 * 4096**2 + 2 * 8192) / 2039e9 * 1e3)


def test_many_samples_are_bound_by_operations() -> None:
    found = predict_layer(LINEAR, A100, batch=4096, two_four=False)
    assert found is not None
    assert found.bound == "compute"
    assert found.ms == pytest.approx(2 * 4096**3 / 312e12 * 1e3)


def test_sparse_kernels_halve_the_operations_and_compress_the_weights() -> None:
    dense, sparse = (predict_layer(LINEAR, A100, batch=4096, two_four=two_four) for two_four in (False, True))
    assert dense is not None
    assert sparse is not None
    assert sparse.ms == pytest.approx(dense.ms / 2)
    one = predict_layer(LINEAR, A100, batch=1, two_four=True)
    assert one is not None  # 16 bits for each of two kept weights of four, and 2 bits of position
    assert one.ms == pytest.approx((0.5625 * 2 * 4096**2 + 2 * 8192) / 2039e9 * 1e3)


@pytest.mark.parametrize("target", ["cpu", "orin", "thor"])
def test_devices_without_known_rates_have_no_roofline(target: str) -> None:
    assert predict_layer(LINEAR, Target.parse(target), batch=1, two_four=False) is None


@pytest.fixture(scope="module")
def program() -> Program:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 12))
    return capture(network, (torch.randn(2, 4, 6, 6),))


def test_a_program_is_the_sum_of_its_layers_and_masks_count_on_sparse_targets(program: Program) -> None:
    layers = program.layers()
    assert [(layer.inputs, layer.outputs) for layer in layers] == [(4 * 36, 8 * 36), (8 * 36, 12)]

    def total(two_four: bool) -> float:
        found = [predict_layer(layer, A100, 8, two_four=two_four) for layer in layers]
        return sum(prediction.ms for prediction in found if prediction is not None)

    assert predict_program(program, A100, 8) == pytest.approx(total(False))
    masked = Sparsify().run(program).program
    assert predict_program(masked, A100, 8) == pytest.approx(total(True))
    assert predict_program(masked, Target.parse("a100"), 8) == pytest.approx(total(False))
    assert predict_program(masked, Target.parse("cpu"), 8) is None
