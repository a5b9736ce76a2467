"""Latency, accuracy, numeric comparison, profile."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from prunec.passes.errors import InputError, NumericMismatchError
from prunec.runtime.evaluate import evaluate, top1, top5
from prunec.runtime.latency import compare_latency, time_runs, wall_clock
from prunec.runtime.numerics import onnx_vs_torch, random_inputs
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.profile import profile_onnx
from tests.runtime.nets import small


def test_speedup_of_a_known_ratio_lies_in_its_interval() -> None:
    found = compare_latency(
        wall_clock(lambda: time.sleep(0.004)), wall_clock(lambda: time.sleep(0.002)), runs=30, warmup=1
    )
    assert 1.5 < found.speedup < 2.5
    low, high = found.speedup_interval
    assert low <= found.speedup <= high
    assert 4 <= found.dense.median <= found.dense.p90 <= found.dense.p99
    assert found.runs == 30


def test_runs_are_interleaved_in_random_order() -> None:
    calls: list[str] = []
    time_runs([wall_clock(lambda: calls.append("a")), wall_clock(lambda: calls.append("b"))], runs=40, warmup=0, seed=0)
    pairs = ["".join(calls[i : i + 2]) for i in range(0, 80, 2)]
    assert set(pairs) == {"ab", "ba"}


def test_accuracy_weighs_samples_not_batches() -> None:
    logits = torch.eye(6)
    batches = [(logits[:5], torch.arange(5)), (logits[5:], torch.tensor([0]))]
    assert evaluate(lambda x: x, batches) == pytest.approx(5 / 6)
    assert evaluate(lambda x: x, batches, top5) == pytest.approx(1.0)
    assert top1(logits, torch.arange(6)).tolist() == [1.0] * 6


def test_nothing_to_evaluate_and_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="no sample"):
        evaluate(lambda x: x, [])
    with pytest.raises(InputError, match="not finite"):
        evaluate(lambda x: x, [(torch.eye(2), torch.arange(2))], lambda o, y: o.new_full((2,), float("nan")))


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (lambda o, y: 0.5, "gave float for 2 samples"),
        (lambda o, y: (o.argmax(1) == y).float().mean(), r"shape \[\] for 2 samples; expected .* shape \[2\]"),
        (lambda o, y: o.new_full((2,), 50.0), "from 50 to 50; expected 0 to 1"),
        (lambda o, y: {}[3], r"metric failed at .*test_measurement\.py:\d+: KeyError: 3"),
        (lambda o: o, r"metric failed \(.*test_measurement\.py:\d+\): TypeError"),
    ],
)
def test_metrics_that_give_no_scores_are_refused(metric: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(lambda x: x, [(torch.eye(2), torch.arange(2))], metric)


def test_metrics_may_give_whether_a_sample_is_right() -> None:
    assert evaluate(lambda x: x, [(torch.eye(2), torch.tensor([0, 0]))], lambda o, y: o.argmax(1) == y) == 0.5


def test_a_changed_model_is_noticed(tmp_path: Path) -> None:
    program = small()
    export_onnx(program, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    bias = next(t for t in model.graph.initializer if t.name == "classifier.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.5, bias.name))
    onnx.save(model, tmp_path / "m.onnx")
    assert onnx_vs_torch(program, tmp_path / "m.onnx") > 1e-2


def test_outputs_that_say_nothing_are_refused(tmp_path: Path) -> None:
    program = small()
    with torch.no_grad():
        program.parameters()["classifier.weight"].zero_()
        program.parameters()["classifier.bias"].zero_()
    export_onnx(program, tmp_path / "m.onnx")
    with pytest.raises(NumericMismatchError, match="can't be compared"):
        onnx_vs_torch(program, tmp_path / "m.onnx")


def test_profile_names_layers_and_shares(tmp_path: Path) -> None:
    program = small()
    export_onnx(program, tmp_path / "m.onnx")
    times = profile_onnx(tmp_path / "m.onnx", random_inputs(program, 2, seed=0), runs=5)
    assert sum(entry.share for entry in times) == pytest.approx(1)
    layers = {entry.layer for entry in times if entry.layer}
    assert {"stem.0", "body", "depthwise", "grouped", "classifier"} <= layers
    assert all(entry.latency_ms >= 0 for entry in times)
    assert list(tmp_path.iterdir()) == [tmp_path / "m.onnx"]


def test_random_inputs_follow_the_seed() -> None:
    program = small()
    a, b, c = (random_inputs(program, 3, seed)[0] for seed in (0, 0, 1))
    assert a.shape == (3, 3, 8, 8)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
