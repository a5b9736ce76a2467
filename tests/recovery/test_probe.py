"""The probe of a retraining and what the networks are measured on."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunec.calibration.data import Data
from prunec.calibration.splits import SampleSplit
from prunec.compiler.facts.request import Request
from prunec.compiler.facts.settings import Settings
from prunec.compiler.facts.step_facts import StepInput, facts_of
from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.recovery import scores
from prunec.compiler.recovery.diagnosis import Diagnosis
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.learning_curve import LONGER, projected_gain, rate_sum, stretches
from prunec.compiler.recovery.objective import DEFAULT_OBJECTIVE
from prunec.compiler.recovery.recovered import Retraining, Spent
from prunec.compiler.recovery.schedules import parse_schedule
from prunec.compiler.recovery.scores import TRAINING_SAMPLES, Estimate, Scores, training_sample
from prunec.compiler.stages.step_runs import dense_fact, run_steps
from prunec.passes.identity import weights_sha256
from prunec.passes.program import Program
from prunec.passes.tensors import fingerprint
from prunec.passes.unknown import Unknown
from prunec.runtime.target import Target

RECOVER = 'recover{epochs=3,schedule="constant:0.01",batch_size=32'


def ran(program: Program, data: Data, pipeline: str) -> tuple[Program, list[Retraining]]:
    steps = parse_pipeline(pipeline)
    request = Request(program, Target.parse("cpu"), steps, data, DEFAULT_OBJECTIVE, Settings())
    end = run_steps(StepInput(program, request, 0, (dense_fact(request),)), steps)
    return end.program, facts_of(end.history, Retraining)


def test_a_probe_changes_no_bit_and_leaves_its_facts(program: Program, data: Data) -> None:
    blind, (without,) = ran(program, data, f"prune-filters{{ratio=0.5}} {RECOVER},probe=0}}")
    seeing, (with_probe,) = ran(program, data, f"prune-filters{{ratio=0.5}} {RECOVER}}}")
    assert fingerprint(blind.tensors()) == fingerprint(seeing.tensors())
    assert without.probe is None
    assert with_probe.options.probe == 2
    probe = with_probe.probe
    assert probe is not None
    assert probe.weights_in == weights_sha256(seeing)
    assert probe.options == replace(with_probe.options, epochs=2, schedule="cosine:0.02", keep="last", probe=0), (
        "the dense training's rate isn't known: a fifth of the usual one"
    )
    assert isinstance(probe.spent, Spent)
    assert probe.spent == replace(
        with_probe.spent,
        epochs=2,
        learning_rates=parse_schedule("cosine:0.02", epochs=2).pieces(2),
        steps=2 * with_probe.spent.steps // 3,
        samples=2 * with_probe.spent.samples // 3,
    )


def test_a_diagnosis_is_a_function_of_the_seed_and_not_of_the_test_data(program: Program, data: Data) -> None:
    assert isinstance(data.test, SampleSplit)
    other = replace(data, test=replace(data.test, positions=data.test.positions[:3]))
    found = [ran(program, given, f"{RECOVER}}}")[1][0] for given in (data, data, other)]
    assert isinstance(found[0].diagnosis, Diagnosis)
    assert found[0].diagnosis == found[1].diagnosis == found[2].diagnosis


def test_the_dense_network_is_measured_once(program: Program, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    of = Scores.of

    def watched(network: Program, *arguments: object, **others: object) -> Scores:
        measured.append(fingerprint(network.tensors()))
        return of(network, *arguments, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(scores.Scores, "of", watched)
    ran(program, data, f"prune-filters{{ratio=0.25}} {RECOVER}}} prune-filters{{ratio=0.25}} {RECOVER}}}")
    assert measured.count(fingerprint(program.tensors())) == 1
    assert len(measured) == 1 + 2 * 2, "and the kept network and the probe's of each retraining"


def test_a_probe_that_diverges_tells_nothing(program: Program, data: Data) -> None:
    # The one step of the run has the first rate; the probe restarts at the highest one, which no step had.
    _, (fact,) = ran(
        program, data, 'recover{epochs=1,schedule="step:0=1e-9,0.99=1e30",batch_size=1000,probe=3,keep=last}'
    )
    assert fact.probe is not None
    assert isinstance(fact.probe.spent, Unknown)
    assert isinstance(fact.diagnosis, Diagnosis)
    assert fact.diagnosis.evidence.probe_gain == Unknown("the probe diverged.")
    assert fact.diagnosis.verdict in ("not known", "converged")


class Sorted:
    """Samples whose label tells where they stand."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(indices), 1), indices * 10 // self.count


@pytest.mark.parametrize("count", [30, 1999, 2000, 2001, 2049, 50_000])
def test_a_sample_of_sorted_training_data_has_all_classes(count: int) -> None:
    split = SampleSplit(Sorted(count), torch.arange(count), lambda inputs: inputs)  # type: ignore[arg-type]
    labels = torch.cat([labels for _, labels in training_sample(split)])
    shares = labels.bincount(minlength=10) / len(labels)
    assert len(labels) == min(count, TRAINING_SAMPLES)
    assert (shares - 0.1).abs().max() <= 0.05


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_a_paired_difference_is_that_of_the_means_and_never_certain(pairs: list[tuple[int, int]]) -> None:
    after, before = np.array(pairs, dtype=float).T
    found = Estimate.paired(after, before)
    assert found.points == pytest.approx(100 * (after.mean() - before.mean()))
    assert found.standard_error > 0
    assert Estimate.paired(before, after) == Estimate(-found.points, found.standard_error)


def test_an_error_of_a_paired_difference_is_the_spread_of_many() -> None:
    random = np.random.default_rng(0)
    before = random.random((2000, 400)) < 0.8
    after = np.where(random.random(before.shape) < 0.1, ~before, before)
    found = [Estimate.paired(a.astype(float), b.astype(float)) for a, b in zip(after, before, strict=True)]
    spread = float(np.std([estimate.points for estimate in found]))
    assert spread == pytest.approx(np.mean([estimate.standard_error for estimate in found]), rel=0.05)


def records(accuracies: Iterator[float] | list[float]) -> list[EpochRecord]:
    return [EpochRecord(e, 0.1, 1.0, 0.0, a / 100, 0.0, 1.0) for e, a in enumerate(accuracies, 1)]


@pytest.mark.parametrize("text", ["cosine:0.1", "clr:0.1", "slr"])
@given(st.floats(-5, 5), st.floats(-10, 10))
def test_a_smooth_curve_of_the_model_gives_its_growth(text: str, growth: float, annealing: float) -> None:
    schedule = parse_schedule(text, epochs=20)
    highest = max(rate for _, rate in schedule.trace(20, 20))
    accuracies = [
        50 + growth * np.log(rate_sum(schedule, 0, e)) - annealing * schedule.learning_rate(e - 0.025) / highest
        for e in range(1, 21)
    ]
    gain = projected_gain(stretches(schedule, records(accuracies), lambda record: record.validation))
    assert isinstance(gain, Estimate)
    assert gain.points == pytest.approx(growth * np.log(LONGER), abs=0.02)


def test_a_stage_that_settled_promises_nothing_and_one_that_rose_does() -> None:
    schedule = parse_schedule("step:0=0.1,20=0.01", epochs=40)
    rising = [50 + 5 * np.log(epoch) for epoch in range(1, 21)]
    settled = [75.0 + 0.1 * (-1) ** epoch for epoch in range(20)]
    first, second = stretches(schedule, records(rising + settled), lambda record: record.validation)
    assert (first.start, first.end, second.start, second.end) == (0, 20, 20, 40)
    assert first.gain.points == pytest.approx(5 * np.log(1 + 2 * 40 / 20), abs=1e-6)
    assert not second.gain.is_above(0)
    assert not second.gain.is_below(0)


def test_few_epochs_are_not_fitted() -> None:
    for text in ("constant:0.1", "cosine:0.1"):
        schedule = parse_schedule(text, epochs=4)
        assert isinstance(
            projected_gain(stretches(schedule, records([10, 20, 30, 35]), lambda r: r.validation)), Unknown
        )
