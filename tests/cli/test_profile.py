"""`prunec profile`: tables over batches and threads, layers beside what models tell, engines, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from prunec.compiler.commands import profile_latency
from prunec.compiler.commands.profile_latency import profile_path, shares_of
from prunec.compiler.commands.profile_subject import opened
from prunec.compiler.project.model_options import ModelOptions
from prunec.passes.costs.cost_model import CostKey, CostSource
from prunec.passes.costs.counting import work_of
from prunec.passes.costs.workload import Work
from prunec.passes.errors import UsageError
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.latency import SessionTimes, WarmUp
from tests.cli.conftest import Prunec

NOTHING = ModelOptions(None, None, False, "")


class Affine:
    """A cost model that tells one thousandth of a millisecond for each input and each output channel."""

    source: CostSource = "measured"
    error: dict[str, float] = {}  # noqa: RUF012 - a fake of a value

    def __init__(self, key: CostKey) -> None:
        self.key = key

    @property
    def plain(self) -> "Affine":
        return self

    def layer_ms(self, work: Work) -> NDArray[np.float64]:
        return (work.in_channels + work.out_channels) / 1000

    def network_ms(self, work: Work) -> NDArray[np.float64]:
        return np.asarray(self.layer_ms(work).sum(-1))


def test_all_batches_with_all_threads(bundle: Path, prunec: Prunec) -> None:
    found = json.loads(prunec("profile", bundle, "--runs", 6, "--batch", "1,3", "--threads", "2,1", "--json").out)
    first, *_ = found["combinations"]
    settings = [each["settings"] for each in found["combinations"]]
    assert [(each["batch"], each["threads"]) for each in settings] == [(1, 2), (1, 1), (3, 2), (3, 1)]
    for name in ("settings", "latency_ms", "operators"):
        assert found[name] == first[name], "what stood there before there were combinations"
    for each in found["combinations"]:
        low, high = each["interval_ms"]
        assert low <= each["latency_ms"]["median"] <= high
        assert each["samples_per_s"] == pytest.approx(1000 * each["settings"]["batch"] / each["latency_ms"]["median"])
        assert len(each["sessions_ms"]) == len(each["warm_up"]) == 1
        assert each["warm_up"][0]["runs"] >= 20
        assert set(each["steadiness"]) == {"drift", "drift_chance", "drifts", "outliers"}


def test_layers_stand_beside_the_roofline_of_the_target(bundle: Path, prunec: Prunec) -> None:
    outcome = prunec("profile", bundle, "--runs", 2)
    _, *tables = outcome.out.splitlines()
    assert max(map(len, tables)) <= 80
    assert "predicted for a100-2:4-fp16" in outcome.out, "never in a measured column"
    (combination,) = json.loads(prunec("profile", bundle, "--runs", 2, "--json").out)["combinations"]
    layers = combination["layers"]
    operators = sum(time["latency_ms"] for time in combination["operators"])
    assert sum(layer["measured_ms"] or 0 for layer in layers) == pytest.approx(operators)
    assert all(layer["predicted_ms"] > 0 for layer in layers if layer["name"])
    assert {layer["model_ms"] for layer in layers} == {None}


def test_layers_stand_beside_a_cost_model(bundle: Path) -> None:
    with opened(bundle, config=None, model=NOTHING, note=None) as subject:
        key = subject.cost_key(batch=2, threads=1)
    asked = profile_latency.combinations_of([1, 2], [1], runs=2, seed=0)
    found = profile_path(bundle, asked, config=None, model=NOTHING, costs=Affine(key))
    with opened(bundle, config=None, model=NOTHING, note=None) as subject:
        assert subject.program is not None
        work = work_of(subject.program)
    for combination, is_fitting in zip(found.combinations, (False, True), strict=True):
        assert not isinstance(combination.layers, Unknown)
        told = {layer.name: layer.model_ms for layer in combination.layers}
        expected = dict(zip([each.name for each in work.operations], Affine(key).layer_ms(work).tolist(), strict=True))
        assert told == {name: expected[name] if is_fitting else None for name in told}


@pytest.mark.parametrize(("batch", "threads"), [(4, 1), (1, 2)])
def test_a_cost_model_of_another_batch_or_threads_is_refused(bundle: Path, batch: int, threads: int) -> None:
    with opened(bundle, config=None, model=NOTHING, note=None) as subject:
        costs = Affine(subject.cost_key(batch, threads))
    asked = profile_latency.combinations_of([1], [1], runs=2, seed=0)
    with pytest.raises(UsageError) as refusal:
        profile_path(bundle, asked, config=None, model=NOTHING, costs=costs)
    assert ("batch: 4, here 1" if batch == 4 else "threads: 2, here 1") in str(refusal.value)


def test_a_file_of_measured_costs_stands_beside_the_layers(project: Path, prunec: Prunec) -> None:
    assert prunec("measure-costs", "model.pt", "-t", "cpu", "-o", "costs.json").code == 0
    outcome = prunec("profile", "model.pt", "--runs", 4, "--cost-model", "costs.json")
    assert outcome.code == 0, outcome.err
    assert "cost model" in outcome.out
    found = json.loads(prunec("profile", "model.pt", "--runs", 4, "--cost-model", "costs.json", "--json").out)
    assert all(layer["model_ms"] >= 0 for layer in found["combinations"][0]["layers"])
    assert prunec("profile", "model.pt", "--runs", 4, "--cost-model", "model.pt").code == 9


def test_a_cost_model_that_stands_beside_nothing_is_said_so(
    bundle: Path, prunec: Prunec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(bundle / "model.onnx", config=None, model=NOTHING, note=None) as subject:
        costs = Affine(subject.cost_key(1, 1))
    monkeypatch.setattr("prunec.runtime.costs.cost_file.read_costs", lambda _: costs)
    outcome = prunec("profile", bundle / "model.onnx", "--runs", 2, "--cost-model", "costs.json")
    assert outcome.code == 0, outcome.err
    assert "cost model: an ONNX file alone doesn't tell the layers of its network." in outcome.out


def test_samples_per_second_have_no_exponent(bundle: Path, prunec: Prunec, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(_: object, __: object, runs: int) -> SessionTimes:
        return SessionTimes(np.full(runs, 0.001), WarmUp(20, settled=True))

    monkeypatch.setattr("prunec.runtime.engines.remote.RemoteSession.timed", timed)
    outcome = prunec("profile", bundle / "model.onnx", "--runs", 2, "--batch", 64)
    assert outcome.code == 0, outcome.err
    assert " 64000000" in outcome.out


def test_sessions_share_the_runs_each_in_a_process_of_its_own(
    project: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions are made up: the second is slower, one run of the third is far off, and the last didn't get warm."""
    made = iter([(10, 1.0), (10, 2.0), (10, 1.0)])
    started: list[int] = []

    def timed(*_: object) -> SessionTimes:
        started.append(children.child()._process.pid)
        runs, level = next(made)
        ms = level * np.linspace(0.99, 1.01, runs)
        ms[-1] *= 1 + 99 * (len(started) == 3)
        return SessionTimes(ms, WarmUp(20, settled=len(started) < 3))

    monkeypatch.setattr("prunec.runtime.engines.remote.RemoteSession.timed", timed)
    asked = profile_latency.combinations_of([1], [1], runs=30, seed=0)
    (found,) = profile_path(bundle / "model.onnx", asked, config=None, model=NOTHING).combinations
    assert len(set(started)) == 3
    assert found.sessions_ms == pytest.approx([1, 2, 1], rel=0.02)
    assert found.interval_ms == pytest.approx((1, 2), rel=0.02), "it covers the slower session"
    assert found.steadiness.outliers == pytest.approx(1 / 30)
    assert [each.settled for each in found.warm_up] == [True, True, False]
    assert isinstance(found.layers, Unknown)


@pytest.mark.parametrize(
    ("runs", "sessions", "shares"), [(200, None, [67, 67, 66]), (29, None, [29]), (5, 2, [3, 2]), (2, 1, [2])]
)
def test_shares_of_the_runs(runs: int, sessions: int | None, shares: list[int]) -> None:
    assert shares_of(runs, sessions) == shares


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--batch", "1,x"), "--batch is '1,x': expected whole numbers"),
        (("--batch", "0"), "from 1 to 65536"),
        (("--threads", "1,1"), "different numbers"),
        (("--threads", ""), "expected whole numbers"),
        (("--runs", "5", "--sessions", "3"), "a session needs 2 runs"),
    ],
)
def test_what_can_not_be_measured_is_refused(
    bundle: Path, prunec: Prunec, options: tuple[str, ...], words: str
) -> None:
    outcome = prunec("profile", bundle, *options)
    assert outcome.code == 2, outcome.err
    assert words in outcome.err


def test_an_engine_that_does_not_run_here_is_refused(project: Path, prunec: Prunec) -> None:
    arguments = ("compile", "model.pt", "-t", "a100", "--epochs", 0, "-o", "x")
    assert prunec(*arguments).code == 0
    engine = project / "x" / "engine.rtx"
    outcome = prunec("profile", engine, "--runs", 2)
    assert outcome.code == 4
    assert "needs the device (NVIDIA A100" in outcome.err
    assert f"Run prunec profile {engine} on the device" in outcome.err
    shutil.copy(project / "x" / "report.json", project / "x" / "other.rtx")
    assert prunec("profile", project / "x" / "other.rtx").code == 9, "it is no engine, and the bundle isn't intact"
