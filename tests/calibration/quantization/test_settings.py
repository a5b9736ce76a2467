"""Settings that are tried, samples that are held back, and layers that a budget keeps in higher precision."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter

from prunec.calibration.quantization.calibrate import Calibrate, setting_words
from prunec.calibration.quantization.macs_budget import most_sensitive
from prunec.calibration.quantization.output_error import output_error
from prunec.calibration.quantization.parted import MOST_HELD_BACK, PartedSamples, parted
from prunec.calibration.quantization.range_methods import RangeMethod
from prunec.calibration.quantization.sensitivity import LayerSensitivity
from prunec.calibration.quantization.settings import Settled, few, rounded, settle
from prunec.passes import capture
from prunec.passes.errors import NumericMismatchError, UsageError
from prunec.passes.feeding import feed
from prunec.passes.program import Program
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.placement import SENSITIVE, place


class Uneven(nn.Module):
    """Channels of very different ranges between layers, which one grid holds badly, and some far values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 5)
        with torch.no_grad():
            scales = torch.logspace(-2.5, 0, 16).view(-1, 1, 1, 1)
            self.first.weight.mul_(scales)
            self.first.bias.mul_(scales.flatten())
            self.deep.weight.div_(scales)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(torch.relu(self.deep(torch.relu(self.first(x)))))
        return self.head(torch.relu(x).mean((2, 3)))


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    return capture(Uneven().eval(), (images(2),))


def settled_by(
    program: Program, options: Calibrate, samples: PartedSamples | None = None, form: Form = "symmetric"
) -> Settled:
    samples = samples or parted([images(24), images(24, 2)], 48)
    return settle(options, program, form, samples, lambda done, total, found: None)


def values(batches: object) -> list[float]:
    return [float(value) for batch in batches for value in batch.flatten()]  # type: ignore[attr-defined]


def test_samples_are_parted_alike_whatever_the_batches() -> None:
    whole = torch.arange(22.0).view(22, 1)
    for size in (1, 3, 4, 22):
        parts = parted(whole.split(size), 22)
        assert values(parts.held_back) == [3, 7, 11, 15, 19]
        assert sorted(values(parts.looked_at) + values(parts.held_back)) == list(range(22))
        assert values(parts.looked_at) == values(parts.looked_at)


@pytest.mark.parametrize(("count", "held_back"), [(3, 0), (16, 4), (256, 64), (1000, 62), (6400, 64)])
def test_a_quarter_is_held_back_and_never_more_than_memory_bears(count: int, held_back: int) -> None:
    parts = parted([torch.zeros(count, 1)], count)
    assert len(values(parts.held_back)) == held_back <= MOST_HELD_BACK


def test_all_settings_are_tried_and_the_best_is_taken(program: Program) -> None:
    settled = settled_by(program, Calibrate(method="auto"))
    methods = ("min-max", "percentile 99.99", "entropy", "mse")
    words = {setting_words(method, equalized) for method in methods for equalized in (False, True)}
    assert len(settled.tried) == 9
    assert set(settled.tried) > words
    assert settled.held_back == 12
    best, found = min(settled.tried, key=settled.tried.__getitem__), settled.options
    is_corrected, equalized = found.rounding == "corrected", found.equalize is True
    assert best == setting_words(found.method_text, equalized, corrected=is_corrected)
    assert equalized


def test_what_is_told_of_a_setting_is_what_it_loses_on_samples_held_back(program: Program) -> None:
    samples = parted([images(24), images(24, 2)], 48)
    settled = settled_by(program, Calibrate(method="auto", equalize=False, rounding="nearest"), samples)
    assert set(settled.tried) == {"min-max", "percentile 99.99", "entropy", "mse"}
    with torch.no_grad():
        x = torch.cat(list(samples.held_back))
        error = output_error(settled.observed.quantized(), [x], [program(x)])
    assert min(settled.tried.values()) == pytest.approx(error, rel=1e-4)


def test_nothing_is_tried_where_settings_are_named(program: Program) -> None:
    settled = settled_by(program, Calibrate(method="entropy"))
    assert (settled.tried, settled.held_back, settled.kept) == ({}, 0, ())
    assert settled.options == Calibrate(method="entropy", equalize=False, rounding="nearest")
    assert settled.observed.method == RangeMethod("entropy")


def test_settings_that_are_given_stay(program: Program) -> None:
    settled = settled_by(program, Calibrate(method="auto", equalize=True, rounding="learned", percentile=99.9))
    assert (settled.options.equalize, settled.options.rounding) == (True, "learned")
    assert "percentile 99.9, equalized" in settled.tried
    assert all("corrected" not in words and "equalized" in words for words in settled.tried)


def test_the_same_samples_give_the_same_settings(program: Program) -> None:
    first, second = (settled_by(program, Calibrate(method="auto")) for _ in range(2))
    assert (first.tried, first.options) == (second.tried, second.options)


def test_too_few_samples_to_hold_one_back_are_an_error(program: Program) -> None:
    with pytest.raises(UsageError, match="1 in 4 samples is held back"):
        settled_by(program, Calibrate(method="auto"), parted([images(3)], 3))
    settled_by(program, Calibrate(method="mse"), parted([images(3)], 3))


@pytest.mark.parametrize("method", ["auto", "mse"])
def test_a_budget_keeps_layers_and_is_never_exceeded(program: Program, method: str) -> None:
    errors = {}
    for share in (0.0, 0.2, 1.0):
        settled = settled_by(program, Calibrate(method=method, keep_macs=share))  # type: ignore[arg-type]
        rows = settled.observed.placement(settled.kept).layers
        spent = sum(row.macs for row in rows if not row.is_quantized)
        assert spent <= share * sum(row.macs for row in rows)
        assert {row.layer for row in rows if row.reason == SENSITIVE} == set(settled.kept)
        errors[share] = len(settled.kept)
    assert errors[0.0] == 0
    assert errors[0.2] > 0
    assert errors[1.0] == 4


class Mended(nn.Module):
    """The second layer reads one channel that is far larger than the others, until channels are equalized."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.first.weight[0] *= 1000
            self.first.bias[0] *= 1000
            self.second.weight[:, 0] /= 1000

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(x))))))
        return self.head(x.mean((2, 3)))


def test_what_equalization_mends_isn_t_kept_in_higher_precision() -> None:
    torch.manual_seed(0)
    program, parts = capture(Mended().eval(), (images(2),)), parted([images(24), images(24, 2)], 48)
    found, plain = (settled_by(program, Calibrate(method=method, keep_macs=0.42), parts) for method in ("auto", "mse"))
    assert "second" in plain.kept
    assert found.options.equalize
    assert found.kept
    assert "second" not in found.kept
    with torch.no_grad():
        x = torch.cat(list(parts.held_back))
        errors = [output_error(found.observed.quantized(kept), [x], [program(x)]) for kept in (found.kept, plain.kept)]
    assert errors[0] < errors[1]


class Deciding(Uneven):
    """Gives whole numbers alone, or scores of which one is masked out, or none."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        if self.what == "masked":
            return scores.masked_fill(torch.arange(5) == 2, -torch.inf)
        return (1e4 * scores).long() if self.what == "whole" else torch.relu(scores - 1e4)


@pytest.mark.parametrize("what", ["whole", "masked"])
def test_outputs_that_are_whole_or_infinite_tell_settings_apart(what: str) -> None:
    torch.manual_seed(0)
    settled = settled_by(capture(Deciding(what).eval(), (images(2),)), Calibrate(method="auto", keep_macs=0.3))
    assert len(settled.tried) == 9
    assert max(settled.tried.values()) > min(settled.tried.values())
    assert settled.kept


def test_outputs_that_are_zero_tell_nothing_and_any_setting_does() -> None:
    settled = settled_by(capture(Deciding("none").eval(), (images(2),)), Calibrate(method="auto", keep_macs=0.3))
    assert set(settled.tried.values()) == {0.0}
    assert settled.kept == ()


def test_outputs_that_no_setting_keeps_finite_are_refused(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunec.calibration.quantization.settings.output_error", lambda *_: float("inf"))
    with pytest.raises(NumericMismatchError, match="by none of 8 settings that were tried"):
        settled_by(program, Calibrate(method="auto"))


def test_where_there_are_no_ranges_one_way_is_tried() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    program = capture(network.eval(), (torch.randn(2, 64),))
    x = torch.randn(48, 64)
    settled = settled_by(program, Calibrate(method="auto"), parted(x.split(24), 48), "int4")
    assert settled.tried.keys() > {"mse", "mse, equalized"}
    assert len(settled.tried) == 3, "one of them with corrected biases"


def test_a_budget_is_spent_on_what_costs_most_for_its_macs(program: Program) -> None:
    placement = place(program)
    macs = {row.layer: row.macs for row in placement.layers}
    errors = {"first": 3.0, "deep": 0.1, "last": 2.0, "head": 0.0}
    found = [LayerSensitivity(name, error, macs[name]) for name, error in errors.items()]
    share = (macs["last"] + macs["deep"] + 1) / sum(macs.values())
    assert most_sensitive(found, placement, share) == ("last", "deep")
    # The best for its price doesn't fit: others do.
    found = [replace(each, error=1000.0) if each.layer == "first" else each for each in found]
    assert most_sensitive(found, placement, share) == ("last", "deep")
    # What was kept by name before counts.
    kept = place(program, ("last",))
    assert most_sensitive([each for each in found if each.layer != "last"], kept, share) == ("deep",)


def test_rounding_is_as_it_is_called(program: Program) -> None:
    settled = settled_by(program, Calibrate(method="mse"))
    nearest = settled.observed.quantized()
    inputs = few(settled.observed.program, [images(8)])
    assert rounded("nearest", settled.observed.program, nearest, inputs, 0).program is nearest
    corrected = rounded("corrected", settled.observed.program, nearest, inputs, 0).program
    assert not torch.equal(corrected.tensors()["head.bias"], nearest.tensors()["head.bias"])


@pytest.mark.parametrize(
    ("options", "whole_runs"),
    [
        (Calibrate(), 48),
        (Calibrate(equalize=True), 2 * 48),
        (Calibrate(smooth=0.5), 48),
        # Two forms are observed on what is looked at; all ways, and floating point, run on what is held back.
        (Calibrate(method="auto", rounding="nearest"), 2 * 36 + 9 * 12),
        (Calibrate(method="auto", equalize=False, rounding="nearest"), 36 + 5 * 12),
        # A correction runs every layer three times on what is looked at, and is one way more.
        (Calibrate(method="auto", equalize=False), 36 + 6 * 12 + 3 * 36),
    ],
)
def test_every_sample_that_runs_is_counted(
    program: Program, options: Calibrate, whole_runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Counter[str]()

    def feeding(program: Program, inputs: Tensor) -> object:
        ran["fed"] += len(inputs)
        return feed(program, inputs)

    def running(self: Interpreter, *args: Tensor, **rest: object) -> object:
        ran["observed"] += len(args[0])
        return Interpreter.run(self, *args, **rest)  # type: ignore[arg-type]

    for module in ("settings", "output_error"):
        monkeypatch.setattr(f"prunec.calibration.quantization.{module}.feed", feeding)
    monkeypatch.setattr("prunec.calibration.quantization.observing._Observing.run", running, raising=False)
    if options.method == "auto":
        found = settled_by(program, options)
    else:
        found = settled_by(program, options, PartedSamples([images(24), images(24, 2)]))
    assert found.samples_run == whole_runs
    corrections = 3 * 36 if options.method == "auto" and options.rounding is None else 0
    assert sum(ran.values()) == whole_runs - corrections


def test_a_budget_books_what_its_sensitivities_ran(program: Program) -> None:
    settled = settled_by(program, Calibrate(keep_macs=0.5))
    assert settled.samples_for_sensitivity == (4 + 1) * 32
    assert settled_by(program, Calibrate()).samples_for_sensitivity == 0
    both = settled_by(program, Calibrate(method="auto", keep_macs=0.5))
    assert both.samples_for_sensitivity == 2 * (4 + 1) * 32, "equalized and as it is"


def test_what_equalization_and_smoothing_did_is_told(program: Program) -> None:
    settled = settled_by(program, Calibrate(equalize=True, smooth=0.5))
    assert settled.channels.equalized > 0
    assert settled.channels.largest_factor > 1
    assert (settled.channels.smoothed, settled.options.smooth) == (0, None), "there is no layer norm"
    assert list(settled.before) == ["unchanged channels"]
    weights = [each.program.tensors()["deep.weight"] for each in (*settled.before.values(), settled.observed)]
    assert not torch.equal(*weights)
    assert not settled_by(program, Calibrate()).before


def test_few_samples_are_as_many_as_the_network_takes(program: Program) -> None:
    assert len(few(program, [images(40), images(40)])) == 64
    assert len(few(program, [images(5)])) == 5
    assert len(few(program, [images(40)], 8)) == 8


def test_impossible_options_are_refused() -> None:
    for keep_macs in (-0.1, 1.1):
        with pytest.raises(UsageError, match="keep_macs must be from 0 to 1"):
            Calibrate(keep_macs=keep_macs)
    with pytest.raises(UsageError, match="Known: auto, min-max"):
        Calibrate(method="best")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="keep_macs and max_drop_points both"):
        Calibrate(keep_macs=0.1, max_drop_points=0.3)
