"""The roofline against its limits: the plain model of Williams et al., data sheets, tiles and launches."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunec.compiler import capture
from prunec.passes import Sparsify
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.workload import Operation, Work
from prunec.passes.program import Program
from prunec.passes.unknown import Unknown
from prunec.runtime.costs.roofline import BANDWIDTH_SHARE, LAUNCH_MS, RooflineCosts, predict_program, roofline_costs
from prunec.runtime.devices import DEVICES
from prunec.runtime.target import Target
from tests.runtime.costs.networks import Layers, resnet

GPUS = sorted(name for name, device in DEVICES.items() if device.peak_dense_tops and device.memory_gb_per_s)
SPARSE_GPUS = [name for name in GPUS if DEVICES[name].sparse_tensor_cores]
BITS = {"fp32": 32, "fp16": 16, "int8": 8}
precisions = st.sampled_from(sorted(BITS))
channels, batches = st.integers(1, 700), st.sampled_from([1, 3, 8, 64, 512])


def costs(target: str, batch: int = 1, sparse: frozenset[str] = frozenset()) -> RooflineCosts:
    found = roofline_costs(Target.parse(target), batch, sparse)
    assert not isinstance(found, Unknown)
    return found


def convolution(inputs: int, filters: int, *, size: int = 14, kernel: int = 3, grouped: bool = False) -> Work:
    layers = Layers()
    layers.conv(size, inputs, filters, kernel, grouped=grouped)
    return layers.work()


def plain_ms(work: Work, target: str, batch: int, *, two_four: bool = False) -> tuple[float, float]:
    """Operations over the peak rate, and bytes over the bandwidth: the model without launches and tiles."""
    device, precision = Target.parse(target).info, Target.parse(target).precision
    peak_tops, bandwidth = device.peak_tops(precision, two_four), device.memory_gb_per_s
    assert peak_tops is not None
    assert bandwidth is not None
    bits = BITS[precision]
    weight_bits = (bits + 2) / 2 if two_four else bits
    moved = (batch * (work.reads + work.writes + work.joined).sum() * bits + work.weights.sum() * weight_bits) / 8
    return 2 * batch * work.macs.sum() / (peak_tops * 1e9), moved / (bandwidth * 1e6)


@given(st.sampled_from(GPUS), precisions, batches, channels, channels, st.sampled_from([1, 3]))
def test_never_below_operations_over_peak_and_bytes_over_bandwidth(
    device: str, precision: str, batch: int, inputs: int, filters: int, kernel: int
) -> None:
    target, work = f"{device}-{precision}", convolution(inputs, filters, kernel=kernel)
    predicted = float(costs(target, batch).network_ms(work))
    assert predicted >= max(plain_ms(work, target, batch)) + LAUNCH_MS
    if device in SPARSE_GPUS and precision != "fp32":
        target = f"{device}-2:4-{precision}"
        sparse = float(costs(target, batch, frozenset({"1.weight"})).network_ms(work))
        assert max(plain_ms(work, target, batch, two_four=True)) + LAUNCH_MS <= sparse <= predicted


@given(st.sampled_from(GPUS), precisions, batches, channels, channels, st.booleans())
def test_wider_layers_never_take_less(
    device: str, precision: str, batch: int, inputs: int, filters: int, grouped: bool
) -> None:
    model = costs(f"{device}-{precision}", batch)
    base = model.network_ms(convolution(inputs, inputs if grouped else filters, grouped=grouped))
    if grouped:
        assert base <= model.network_ms(convolution(inputs + 1, inputs + 1, grouped=True))
        return
    assert base <= model.network_ms(convolution(inputs + 1, filters))
    assert base <= model.network_ms(convolution(inputs, filters + 1))
    assert base <= costs(f"{device}-{precision}", batch + 1).network_ms(convolution(inputs, filters))


@pytest.mark.parametrize(("target", "multiple"), [("a100", 8), ("a100-int8", 16)])
def test_inputs_within_a_block_cost_the_same_operations(target: str, multiple: int) -> None:
    times = [costs(target, 64).times(convolution(width, 256)).compute_ms[1] for width in range(257, 257 + 4 * multiple)]
    steps = np.flatnonzero(np.diff(times) > 0)
    assert times[0] > 0  # bound by its operations
    assert ((steps + 257) % multiple == 0).all()
    assert times[0] == times[multiple - 1] < times[-1]


def test_filters_within_a_tile_cost_the_same_operations() -> None:
    times = [costs("a100", 64).times(convolution(512, width)).compute_ms[1] for width in range(96, 130)]
    assert times[1] == times[32]  # 97 and 128 filters take the same tiles
    assert times[33] > times[32]


def linear(inputs: int, outputs: int) -> Work:
    layers = Layers()
    layers.linear(inputs, outputs)
    return layers.work()


def test_many_samples_are_bound_by_the_rate_of_the_largest_tile() -> None:
    """A product of 16384 with 16384 twice, on 312e12 dense operations per second."""
    work, model = linear(16384, 16384), costs("a100", 16384)
    tile_share = 1 / (1 + 44 * (1 / 256 + 1 / 128))
    operations_ms = 2 * 16384**3 / 312e12 * 1e3 / tile_share
    predicted = model.times(work).of([1])
    assert predicted.bound == "compute"
    assert predicted.ms == pytest.approx(operations_ms + LAUNCH_MS, rel=0.02)  # the last wave is not full


def test_one_sample_is_bound_by_the_bytes_of_its_weights() -> None:
    """A100: 2039e9 bytes per second; 16 bits for each weight, of two in four with 2 bits of position."""
    work = linear(16384, 16384)
    predicted = costs("a100").times(work).of([1])
    assert predicted.bound == "memory"
    assert predicted.ms == pytest.approx((2 * 16384**2 + 4 * 16384) / 2039e9 * 1e3 / BANDWIDTH_SHARE + LAUNCH_MS)
    sparse = costs("a100-2:4", 1, frozenset({"1.weight"})).times(work).of([1])
    assert sparse.ms == pytest.approx((0.5625 * 2 * 16384**2 + 4 * 16384) / 2039e9 * 1e3 / BANDWIDTH_SHARE + LAUNCH_MS)


def test_small_layers_are_bound_by_launches() -> None:
    layers = Layers()
    layers.linear(64, 64)
    layers.follows("layer_norm", 128)
    predicted = costs("a100").times(layers.work()).of([1])
    assert (predicted.bound, predicted.kernel_bound) == ("launch", "compute")  # of a whole tile
    assert predicted.ms == pytest.approx(2 * LAUNCH_MS, rel=0.01)


def test_the_t4_sustains_half_of_its_rate() -> None:
    work = linear(4096, 4096)
    t4, per_core = (costs(name, 4096).times(work).compute_ms[1] for name in ("t4", "a100"))
    assert t4 / per_core == pytest.approx(2 * 312 / 65, rel=0.1)


def test_two_four_gains_at_most_what_the_rates_say() -> None:
    """1.2 where operations bind, 16 over 9 bits where the bytes of weights do."""
    work = linear(8192, 8192)
    for batch, gain in ((8192, 1.2), (1, 16 / 9)):
        dense = costs("a100", batch).network_ms(work)
        sparse = costs("a100-2:4", batch, frozenset({"1.weight"})).network_ms(work)
        assert dense / sparse == pytest.approx(gain, rel=0.05)


def test_layers_of_other_weights_stay_dense() -> None:
    layers = Layers()
    layers.linear(4096, 4096)
    layers.linear(4096, 4096)
    one, other = costs("a100-2:4", 1, frozenset({"2.weight"})).layer_ms(layers.work())[1:]
    assert one == costs("a100").layer_ms(layers.work())[1] > other


def test_many_widths_at_once_are_each_of_them() -> None:
    works = [resnet((1, 1, 1, 1)).work(), resnet((1, 1, 1, 1)).work()]
    scale = 0.6 + 0.1 * np.arange(len(works[0].operations))
    scaled: dict[str, Any] = {
        field.name: np.stack([getattr(works[0], field.name), getattr(works[1], field.name) * scale])
        for field in fields(Work)
        if field.name != "operations"
    }
    together = Work(operations=works[0].operations, **scaled)
    model = costs("l4-2:4-int8", 4, frozenset({"3.weight", "7.weight"}))
    alone = [
        model.layer_ms(Work(operations=together.operations, **{name: rows[i] for name, rows in scaled.items()}))
        for i in range(2)
    ]
    np.testing.assert_array_equal(model.layer_ms(together), np.stack(alone))
    np.testing.assert_allclose(model.network_ms(together), np.sum(alone, axis=1))


def test_what_comes_before_the_first_layer_takes_no_launch() -> None:
    zeros = {field.name: np.zeros(1) for field in fields(Work) if field.name != "operations"}
    assert costs("a100").network_ms(Work(operations=(Operation(""),), **zeros)) == 0


@pytest.mark.parametrize("target", ["cpu", "orin", "thor"])
def test_devices_without_known_rates_have_no_roofline(target: str) -> None:
    found = roofline_costs(Target.parse(target), 1)
    assert isinstance(found, Unknown)
    assert "no source gives the peak rate" in found.reason


def test_a_roofline_says_what_it_is() -> None:
    model = costs("a100-2:4", 8)
    assert (model.source, dict(model.error)) == ("roofline", {})
    assert (model.key.target, model.key.hardware, model.key.engine) == ("a100-2:4-fp16", "NVIDIA A100 80GB SXM", "")
    assert (model.key.threads, model.key.batch) == (None, 8)


@pytest.fixture(scope="module")
def program() -> Program:
    network = nn.Sequential(nn.Conv2d(64, 512, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512 * 4, 1024))
    return capture(network, (torch.randn(2, 64, 2, 2),))


def test_masks_count_on_sparse_targets(program: Program) -> None:
    dense, sparse = Target.parse("a100"), Target.parse("a100-2:4")
    masked = Sparsify().run(program).program
    assert (
        predict_program(program, sparse, 8) == predict_program(program, dense, 8) == predict_program(masked, dense, 8)
    )
    found, expected = predict_program(masked, sparse, 8), predict_program(program, dense, 8)
    assert isinstance(found, float)
    assert isinstance(expected, float)
    assert found < expected
    assert math.isclose(
        found, float(costs("a100-2:4", 8, frozenset(masked.masks)).network_ms(work_of(program))), rel_tol=1e-12
    )
    assert isinstance(predict_program(program, Target.parse("cpu"), 8), Unknown)
