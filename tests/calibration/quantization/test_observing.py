"""Histograms of what a network computes on data, against its values taken in another way."""

import math
import weakref
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from prunec.calibration.quantization.histograms import BINS, Histogram
from prunec.calibration.quantization.observing import observe
from prunec.calibration.quantization.range_methods import RangeMethod, ranges_of
from prunec.passes import capture
from prunec.passes.errors import InputError, NumericMismatchError, UsageError
from prunec.passes.feeding import BatchInputs, bound, flat_inputs
from prunec.passes.program import Program
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.method_names import RANGE_METHODS, MethodName
from prunec.passes.quantization.placement import Placement, place
from prunec.passes.quantization.quantizers import quantize


class Residual(nn.Module):
    """Convolutions with a sum and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = (x + self.second(x)).relu()
        x = self.third(torch.cat([x, self.second(x).relu()], 1)).relu()
        return self.head(x.mean((2, 3)))


class Ids(nn.Module):
    """Token ids, a mask of truth values and plain numbers, two of them by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, ids: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
        x = self.mix(self.table(ids)).relu() * mask.unsqueeze(-1) * scale[:, None]
        return self.head(x.relu().sum(1))


def images(count: int = 21) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def ids(count: int = 21) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "ids": torch.randint(0, 20, (count, 5), generator=generator),
        "mask": torch.rand(count, 5, generator=generator) > 0.3,
        "scale": torch.rand(count, 1, generator=generator),
    }


def residual(batch: int = 2, fixed: bool = False) -> tuple[Program, Placement]:
    torch.manual_seed(0)

    class Fixed(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.reshape(batch, 3, 6, 6))

    program = fold_batch_norms(capture((Fixed if fixed else Residual)().eval(), (torch.randn(batch, 3, 6, 6),))).program
    assert program.batch_is_dynamic != fixed
    return program, place(program)


def values_of(program: Program, inputs: BatchInputs) -> dict[str, Tensor]:
    """Every tensor that a program computes on a batch."""
    found = {}

    class Recording(Interpreter):
        def run_node(self, n: Node) -> object:
            found[n.name] = value = super().run_node(n)
            return value

    with torch.no_grad():
        Recording(program.module).run(*flat_inputs(program.graph, *bound(program, inputs)), enable_io_processing=False)
    return found


def assert_of(histogram: Histogram, values: Tensor) -> None:
    """That it is the histogram of these values, but for those that other sums round into the next bin."""
    assert histogram.count == values.numel()
    assert (histogram.least, histogram.most) == pytest.approx((float(values.min()), float(values.max())), abs=1e-5)
    other = Histogram.of(values).counts
    assert histogram.counts.shape == (BINS,)
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(other)).max() <= 2 + 0.01 * values.numel()


@pytest.mark.parametrize("sizes", [[21], [1] * 21, [10, 0, 11], [3, 17, 1]])
def test_all_values_are_counted_whatever_the_batches(sizes: list[int]) -> None:
    program, placement = residual()
    found = observe(program, placement, torch.split(images(), sizes))
    assert set(found) == {site.source for site in placement.sites}
    assert len(found) >= 6
    expected = values_of(program, images())
    for source, histogram in found.items():
        assert_of(histogram, expected[source])


def test_a_fixed_batch_is_filled_across_batches_and_what_is_left_is_not_looked_at() -> None:
    program, placement = residual(batch=4, fixed=True)
    found = observe(program, placement, torch.split(images(), [3, 6, 1, 11]))
    expected: dict[str, list[Tensor]] = {}
    for start in range(0, 20, 4):
        for source, value in values_of(program, images()[start : start + 4]).items():
            expected.setdefault(source, []).append(value)
    for source, histogram in found.items():
        assert_of(histogram, torch.cat(expected[source]))


def test_batches_are_no_smaller_than_the_network_takes() -> None:
    batch = torch.export.Dim("batch", min=3, max=5)
    captured = capture(Residual().eval(), (torch.randn(4, 3, 6, 6),), dynamic_shapes=({0: batch},))
    program = fold_batch_norms(captured).program
    assert program.batch_bounds == (3, 5)
    placement = place(program)
    found = observe(program, placement, torch.split(images(), [6, 6, 9]))
    assert found["x"].count == 20 * 3 * 6 * 6  # 5 four times; the last one alone is too few


@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_several_inputs_of_several_types(form: str) -> None:
    example = ids(2)
    program = capture(Ids().eval(), tuple(example.values()))
    placement = place(program)
    data = ids() if form == "dict" else tuple(ids().values())
    found = observe(program, placement, [data])
    assert found
    expected = values_of(program, data)
    for source, histogram in found.items():
        assert_of(histogram, expected[source])


def test_a_program_in_training_runs_in_its_inference_form_and_stays_as_it_is() -> None:
    program, placement = residual()
    expected = observe(program, placement, [images()])
    before = {name: tensor.clone() for name, tensor in program.tensors().items()}
    found = observe(program.train(), placement, [images()])
    assert program.training
    assert all(torch.equal(before[name], tensor) for name, tensor in program.tensors().items())
    for source, histogram in found.items():
        np.testing.assert_array_equal(histogram.counts, expected[source].counts)


def test_double_precision_is_observed_as_it_is() -> None:
    program, placement = residual()
    found = observe(program.double(), placement, [images()])
    expected = values_of(program.double(), images())
    for source, histogram in found.items():
        assert_of(histogram, expected[source])


@pytest.mark.parametrize("batches", [[], [images(0)]])
def test_no_data_are_refused(batches: list[Tensor]) -> None:
    with pytest.raises(UsageError, match="at least 1 input"):
        observe(*residual(), batches)


def test_too_few_for_a_fixed_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 4 inputs"):
        observe(*residual(batch=4, fixed=True), [images(3)])


def test_inputs_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="input"):
        observe(*residual(), [(images(), images())])
    example = ids(2)
    program = capture(Ids().eval(), tuple(example.values()))
    foreign = {**ids(), "ids": ids()["ids"] + 20}
    with pytest.raises(InputError, match="20 to"):
        observe(program, place(program), [foreign])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_data_that_are_not_finite_are_told_as_such(bad: float) -> None:
    program, placement = residual()
    x = images()
    x[13, 1, 2, 3] = bad
    with pytest.raises(NumericMismatchError, match=r"input 'x', read by first, .* 1 of 864 numbers.*\n.*data"):
        observe(program, placement, [x])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_layer_that_yields_no_finite_values_is_named(bad: float) -> None:
    program, placement = residual()
    with torch.no_grad():
        program.tensors()["second.bias"][3] = bad
    with pytest.raises(NumericMismatchError, match=r"value of conv2d_1, .* in second, .*288 of 2304.*\n.*weights"):
        observe(program, placement, [images()])


def test_only_what_the_placement_names_is_looked_at() -> None:
    program, _ = residual()
    placement = place(program, ["first", "second"])
    with torch.no_grad():
        program.tensors()["head.bias"][0] = math.nan
    found = observe(program, placement, [images()])
    assert set(found) == {site.source for site in placement.sites}


@pytest.mark.parametrize("form", [form for form in get_args(Form) if form != "int4"])  # of weights alone
@pytest.mark.parametrize("method", RANGE_METHODS)
def test_a_network_on_the_grids_of_its_ranges_computes_nearly_the_same(method: MethodName, form: Form) -> None:
    program, placement = residual()
    ranges = ranges_of(placement, observe(program, placement, [images(200)]), RangeMethod(method), form)
    with torch.no_grad():
        expected = program(images())
        found = quantize(program, placement, ranges, form)(images())
    error = (found - expected).square().mean() / expected.var()
    assert 0 < error < 0.01


def test_memory_is_that_of_one_part_of_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tensors that were looked at, only the input lives when the next batch is asked for."""
    program, placement = residual()
    seen: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def of(values: Tensor) -> Histogram:
        if values.numel():
            assert len(values) <= 8
            seen.append(weakref.ref(values))
            alive.append(sum(each() is not None for each in seen))
        return original(values)

    def batches() -> Iterator[Tensor]:
        for _ in range(4):
            yield images()
            alive.append(sum(each() is not None for each in seen))

    original = Histogram.of
    monkeypatch.setattr(Histogram, "of", of)
    observe(program, placement, batches())
    assert len(seen) == 4 * 3 * len(placement.sites)
    assert alive[-1] <= 1
    assert max(alive) < len(placement.sites)
