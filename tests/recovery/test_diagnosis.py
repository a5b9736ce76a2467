"""What was wrong with a retraining, if anything; and the schedule where a recipe names none."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prunec.compiler.pipeline.pipeline import parse_pipeline
from prunec.compiler.recovery.advice import advise
from prunec.compiler.recovery.default_schedule import TABLE, choose_schedule
from prunec.compiler.recovery.diagnosis import Diagnosis, diagnose, judge
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.recover_options import Recover
from prunec.compiler.recovery.schedules import Schedule, parse_schedule, untrained
from prunec.compiler.recovery.scores import Estimate, Scores
from prunec.compiler.recovery.signs import DIVERGED, NO_PROBE, Measured, ProbeGain, Signs, dense_rate, probe_rate
from prunec.compiler.recovery.verdicts import Verdict
from prunec.passes.unknown import Unknown
from tests.recovery.published_curves import CURVES, DENSE_TOP1

STEPS = parse_schedule("step:0=0.01,6=0.001,9=1e-4", epochs=12)
UNFITTED = Unknown("too short.")
#: Verdicts that blame the network or its data, not its training.
BLAME = ("over-pruned", "over-fitted")

#: A long retraining that was done: on both parts of the data the network lacks what it lacks.
OVER_PRUNED = Signs(
    limit_points=1.5,
    dense_train=0.97,
    kept_train=0.83,
    dense_validation=0.90,
    kept_validation=0.82,
    missing=Estimate(8.0, 1.5),
    missing_train=Estimate(14.0, 1.0),
    probe_epochs=6,
    probe_learning_rate=0.05,
    probe_gain=Estimate(-0.5, 1.0),
    probe_gain_train=Estimate(0.2, 0.4),
    probe_distance=0.1,
    projected_gain=Estimate(1.0, 2.0),
    projected_gain_train=Estimate(1.0, 1.0),
    last_rate_share=0.0,
    scatter_points=1.0,
    fallen_points=0.5,
    fallen_train_points=0.0,
)

points = st.floats(-100, 100)
estimates = st.builds(Estimate, points, st.floats(0.01, 20))
evidences = st.builds(
    Signs,
    limit_points=st.floats(0.1, 10),
    dense_train=st.floats(0, 1),
    kept_train=st.floats(0, 1),
    dense_validation=st.floats(0, 1),
    kept_validation=st.floats(0, 1),
    missing=estimates,
    missing_train=estimates | st.just(UNFITTED),
    probe_epochs=st.integers(1, 20),
    probe_learning_rate=st.floats(1e-4, 1),
    probe_gain=estimates,
    probe_gain_train=estimates,
    probe_distance=st.floats(1e-3, 100),
    projected_gain=estimates | st.just(UNFITTED),
    projected_gain_train=estimates | st.just(UNFITTED),
    last_rate_share=st.floats(0, 1),
    scatter_points=st.floats(0, 20) | st.just(UNFITTED),
    fallen_points=st.floats(0, 100),
    fallen_train_points=st.floats(0, 100),
)


def curve(percents: Sequence[float], schedule: Schedule = STEPS, train: float = 0.0) -> list[EpochRecord]:
    """Epochs of this accuracy on validation and test data, and so many points more on the training data."""
    return [
        EpochRecord(e, schedule.learning_rate(e - 1), 0.5, min(1.0, (p + train) / 100), p / 100, p / 100, seconds=1.0)
        for e, p in enumerate(percents, 1)
    ]


@pytest.mark.parametrize("text", CURVES)
@pytest.mark.parametrize("train", [0.0, 5.0, 15.0])
def test_published_curves_whose_continuation_gained_are_under_trained(text: str, train: float) -> None:
    schedule = parse_schedule(text)
    found = diagnose(schedule, curve(CURVES[text], schedule, train), DENSE_TOP1 / 100)
    assert found.verdict == "under-trained"
    assert any("decay later" in advice for advice in found.advice)


def test_a_network_that_lacks_accuracy_after_a_finished_training_is_over_pruned() -> None:
    assert judge(OVER_PRUNED) == "over-pruned"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"probe_gain": Estimate(5.0, 1.0)}, "under-trained"),
        ({"probe_gain_train": Estimate(4.0, 0.5)}, "under-trained"),
        ({"probe_gain": Estimate(5.0, 1.0), "scatter_points": 4.0, "last_rate_share": 1.0}, "noisy"),
        ({"probe_gain": Estimate(5.0, 1.0), "scatter_points": 4.0, "last_rate_share": 0.1}, "under-trained"),
        ({"fallen_points": 9.0, "fallen_train_points": 7.0}, "diverging"),
        ({"fallen_points": 9.0, "fallen_train_points": 0.1}, "over-pruned"),
        ({"missing": Estimate(-1.0, 1.0)}, "converged"),
        ({"missing_train": Estimate(-0.5, 0.5)}, "over-fitted"),
        ({"missing_train": Estimate(-0.5, 0.5), "missing": Estimate(1.0, 2.0)}, "converged"),
        ({"missing_train": Estimate(4.0, 0.5)}, "not known"),
        ({"missing": Estimate(1.0, 2.0)}, "not known"),
        ({"probe_distance": 1.0}, "not known"),
        ({"projected_gain": Estimate(6.0, 1.0)}, "not known"),
        ({"projected_gain_train": Estimate(4.0, 1.0)}, "over-pruned"),
        ({"projected_gain_train": Estimate(5.5, 1.0)}, "not known"),
        ({"projected_gain_train": Estimate(9.0, 1.0)}, "under-trained"),
        ({"projected_gain_train": Estimate(9.0, 1.0), "probe_gain": Estimate(-5.0, 1.0)}, "not known"),
        ({"limit_points": 4.0}, "not known"),
        ({"limit_points": 12.0}, "converged"),
    ],
)
def test_each_sign_changes_the_verdict(changes: dict[str, object], verdict: str) -> None:
    assert judge(replace(OVER_PRUNED, **changes)) == verdict  # type: ignore[arg-type]


@given(evidences, st.sampled_from([NO_PROBE, DIVERGED]))
def test_pruning_is_never_blamed_without_a_probe(evidence: Signs, absent: Unknown) -> None:
    blind = replace(evidence, probe_gain=absent, probe_gain_train=absent, probe_distance=absent)
    assert judge(blind) not in BLAME


@given(evidences)
def test_pruning_is_never_blamed_while_the_probe_gains(evidence: Signs) -> None:
    assert isinstance(evidence.probe_gain, Estimate)
    assert isinstance(evidence.probe_gain_train, Estimate)
    if judge(evidence) == "over-pruned":
        assert isinstance(evidence.missing_train, Estimate)
        assert not evidence.probe_gain.is_above(0)
        assert not evidence.probe_gain_train.is_above(0.05 * evidence.missing_train.points)
        assert evidence.missing.points >= evidence.limit_points


@given(evidences, st.floats(0, 50), st.floats(0, 50))
def test_more_gain_of_the_probe_never_moves_towards_over_pruned(evidence: Signs, more: float, train: float) -> None:
    assert isinstance(evidence.probe_gain, Estimate)
    assert isinstance(evidence.probe_gain_train, Estimate)
    gain, gain_train = evidence.probe_gain, evidence.probe_gain_train
    assume(not gain.is_below(-max(evidence.limit_points, evidence.missing.points / 3)))  # it broke the network
    gained = replace(
        evidence,
        probe_gain=replace(gain, points=gain.points + more),
        probe_gain_train=replace(gain_train, points=gain_train.points + train),
    )
    before, after = judge(evidence), judge(gained)
    assert after not in BLAME or before in BLAME
    assert before not in ("under-trained", "noisy") or after == before


@given(evidences, st.floats(0, 50))
def test_a_probe_that_broke_the_network_never_blames(evidence: Signs, more: float) -> None:
    lost = max(evidence.limit_points, evidence.missing.points / 3) + 2.01 + more
    assert judge(replace(evidence, probe_gain=Estimate(-lost, 1.0))) not in BLAME


@given(evidences, st.floats(1, 10))
def test_less_certainty_never_finds_a_fault(evidence: Signs, factor: float) -> None:
    def vaguer(estimate: Estimate | Unknown) -> Estimate | Unknown:
        wide = isinstance(estimate, Estimate)
        return replace(estimate, standard_error=factor * estimate.standard_error) if wide else estimate  # type: ignore[arg-type, union-attr]

    names = ("missing", "missing_train")
    vague = replace(evidence, **{name: vaguer(getattr(evidence, name)) for name in names})  # type: ignore[arg-type]
    assert judge(vague) in (judge(evidence), "not known", "converged")


def probed(text: str, epochs: int, original: Schedule | None, gain: float) -> Diagnosis:
    """The diagnosis of a run at 40 % whose probe gained so many points."""
    schedule = parse_schedule(text, epochs=epochs)
    probe = ProbeGain(2, probe_rate(schedule, epochs, original, 0.1, None), Estimate(gain, 1.0), Estimate(gain, 1.0))
    return diagnose(schedule, curve([40.0] * epochs, schedule), 0.9, None, probe, original=original)


@given(
    st.sampled_from(["constant:{}", "cosine:{}", "step:0={},1=1e-5", "halving:{}"]),
    st.sampled_from(["1e-4", "1e-2", "0.5"]),
    st.integers(2, 40),
    st.sampled_from([None, "step:0=0.1,2=0.01", "cosine:0.02", "cosine:0.1234567"]),
)
def test_advice_never_goes_above_the_rates_of_the_dense_training(
    kind: str, rate: str, epochs: int, dense: str | None
) -> None:
    original = None if dense is None else parse_schedule(dense, epochs=30)
    found = probed(kind.format(rate), epochs, original, 20.0)
    assert found.verdict == "under-trained"
    limit = dense_rate(original)
    advised = [step for text in found.advice for step in parse_pipeline(text.partition(": ")[2]).of(Recover)]
    assert len(advised) == len(found.advice) >= 1
    for options in advised:
        rates = [r for _, r in parse_schedule(options.schedule, epochs=options.epochs).trace(options.epochs, 10)]
        assert max(rates) <= (math.inf if limit is None else limit)
    assert advised[-1].epochs > epochs, "the last costs most"
    assert all(before.epochs <= after.epochs for before, after in pairwise(advised))


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("constant:0.05", "decay the learning rate to zero: recover{epochs=8,schedule=cosine:0.05}"),
        ("cosine:0.001", "use a larger learning rate: recover{epochs=8,schedule=cosine:0.02}"),
        ("cosine:0.05", "train longer: recover{epochs=24,schedule=cosine:0.05}"),
    ],
)
def test_advice_begins_with_what_costs_nothing(text: str, first: str) -> None:
    assert probed(text, 8, None, 20.0).advice[0] == first


def test_a_last_stage_that_ends_too_early_is_begun_earlier() -> None:
    schedule = parse_schedule("step:0=0.1,20=0.01", epochs=32)
    rising = [50.0] * 20 + [50 + 8 * math.log(epoch) for epoch in range(1, 13)]
    found = diagnose(schedule, curve(rising, schedule), 0.9)
    assert found.verdict == "under-trained"
    assert found.advice[0] == 'decay earlier: recover{epochs=32,schedule="step:0=0.1,15=0.01"}'


@pytest.mark.parametrize("epochs", [25, 32, 45])
def test_advice_after_an_early_end_names_no_stage_that_it_never_reaches(epochs: int) -> None:
    schedule = parse_schedule("step:0=0.1,20=0.01,40=0.001,80=1e-4", epochs=90)
    rising = [50 + 8 * math.log(epoch) for epoch in range(1, 21)] + [75.0] * (epochs - 20)
    found = diagnose(schedule, curve(rising, schedule), 0.9)
    assert found.advice[0].startswith("decay later")
    for text in found.advice:
        assert parse_pipeline(text.partition(": ")[2]).of(Recover)


RECIPE = Recover(
    8, "wr", early="early.pt", batch_size=32, optimizer="adam", weight_decay=1e-4, distill=4.0, warmup=2.5, probe=1,
    clip_norm=1.0, over_pruned_points=2.0,
)  # fmt: skip


@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, distill=0.0)])
@pytest.mark.parametrize("verdict", ["under-trained", "over-fitted", "diverging"])
@pytest.mark.parametrize("epochs", [8, 2])
def test_advice_keeps_the_other_options_of_the_recipe(recipe: Recover, verdict: Verdict, epochs: int) -> None:
    schedule = parse_schedule("cosine:0.01", epochs=8)
    signs = replace(OVER_PRUNED, probe_learning_rate=0.02, last_rate_share=0.9)
    for text in advise(verdict, signs, schedule, curve([40.0] * epochs, schedule), None, recipe):
        if "recover{" not in text:
            assert verdict == "over-fitted"
            continue
        (found,) = parse_pipeline(text.partition(": ")[2]).of(Recover)
        assert found.distill == 4.0 or verdict != "over-fitted"
        if verdict == "over-fitted":
            assert found == replace(recipe, distill=4.0) != recipe, "advice to do what was done is none"
        else:
            changed = {"epochs": found.epochs, "schedule": found.schedule, "early": ""}
            assert found == replace(recipe, **changed, warmup=2.5 if found.epochs > 2.5 else 0.0)


def test_a_diverging_run_starts_lower_but_not_above_the_dense_rate() -> None:
    schedule = parse_schedule("constant:0.5", epochs=12)
    fallen = curve([80.0] * 6 + [50.0] * 6, schedule)
    for dense, rate in ((None, "0.05"), ("cosine:0.02", "0.02")):
        original = None if dense is None else parse_schedule(dense, epochs=30)
        found = diagnose(schedule, fallen, 0.9, original=original)
        assert found.verdict == "diverging"
        assert found.advice == (f"train at a lower learning rate: recover{{epochs=12,schedule=cosine:{rate}}}",)


def test_a_few_epochs_without_a_probe_are_not_known() -> None:
    assert diagnose(parse_schedule("cosine:0.1", epochs=3), curve([50, 60, 70]), 0.9).verdict == "not known"


def test_a_curve_that_has_settled_by_the_dense_accuracy_is_converged() -> None:
    constant = parse_schedule("constant:0.01", epochs=12)
    settled = [80, 86, 88, 89, 89.2, 89.3, 90.5, 90.6, 90.5, 90.6, 90.5, 90.6]
    assert diagnose(constant, curve(settled, constant), 0.91).verdict == "converged"


def test_the_epoch_that_was_kept_is_judged() -> None:
    constant = parse_schedule("constant:0.01", epochs=12)
    fallen = curve([90.0] * 11 + [70.0], constant)
    assert diagnose(constant, fallen, 0.9).evidence.kept_validation == 0.9
    assert diagnose(constant, fallen, 0.9, kept_epoch=12).evidence.kept_validation == 0.7


def test_test_data_have_no_say() -> None:
    watched = curve(CURVES["P60F60,1e-3"])
    unwatched = [replace(record, test=0.0) for record in watched]
    assert diagnose(STEPS, watched, 0.8) == diagnose(STEPS, unwatched, 0.8)


def test_a_probe_of_a_broken_network_restarts_higher() -> None:
    dense, schedule = parse_schedule("cosine:0.1", epochs=30), parse_schedule("constant:1e-4", epochs=5)
    scores = {accuracy: Scores(*(np.repeat([1.0, 0.0], [accuracy, 100 - accuracy]),) * 2) for accuracy in (80, 76, 20)}
    for kept, rate in ((80, 0.02), (76, 0.02), (20, 0.08)):
        measured = Measured(scores[80], scores[kept])
        assert probe_rate(schedule, 5, dense, None, measured) == pytest.approx(rate)
    blind = Measured(scores[20], scores[80])
    assert probe_rate(schedule, 5, dense, None, blind) == pytest.approx(0.02)


def test_of_a_run_in_stages_the_training_curve_promises_nothing() -> None:
    epochs = 24
    rising = [40 + 8 * math.log(epoch) for epoch in range(1, epochs + 1)]
    for text, staged in (("step:0=0.1,12=0.01", True), ("constant:0.1", False), ("cosine:0.1", False)):
        schedule = parse_schedule(text, epochs=epochs)
        found = diagnose(schedule, curve(rising, schedule), 0.9).evidence.projected_gain_train
        assert isinstance(found, Unknown) == staged


def test_a_probe_restarts_between_a_fifth_and_all_of_the_dense_rate() -> None:
    dense = parse_schedule("cosine:0.1", epochs=30)
    assert probe_rate(parse_schedule("constant:1e-4", epochs=5), 5, dense, 0.1, None) == pytest.approx(0.02)
    assert probe_rate(parse_schedule("constant:0.05", epochs=5), 5, dense, 0.1, None) == pytest.approx(0.05)
    assert probe_rate(parse_schedule("constant:0.5", epochs=5), 5, dense, 0.1, None) == pytest.approx(0.1)
    assert probe_rate(parse_schedule("constant:0.5", epochs=5), 5, None, 0.1, None) == pytest.approx(0.5)
    assert probe_rate(parse_schedule("constant:1e-4", epochs=5), 5, untrained(), 0.1, None) == pytest.approx(0.02)


@pytest.mark.parametrize(("epochs", "probe"), [(1, 1), (2, 2), (9, 2), (10, 1), (19, 1), (60, 6)])
def test_a_probe_is_a_tenth_of_the_epochs_by_default(epochs: int, probe: int) -> None:
    assert Recover(epochs=epochs).probe_epochs == probe
    assert Recover(epochs=epochs, probe=0).probe_epochs == 0
    assert Recover(epochs=epochs, probe=4).probe_epochs == 4


@pytest.mark.parametrize(
    ("pruned", "original", "expected"),
    [
        (0.0, "cosine:0.1", "clr:0.02"),
        (0.3, "cosine:0.1", "clr:0.02"),
        (0.5, "step:0=0.2,5=0.02", "clr:0.1"),
        (0.9, "cosine:0.1", "clr:0.1"),
        (0.5, None, "clr:0.05"),
    ],
)
def test_the_more_is_pruned_the_larger_the_default_rate(pruned: float, original: str | None, expected: str) -> None:
    dense = None if original is None else parse_schedule(original, epochs=12)
    choice = choose_schedule(pruned, dense)
    assert choice.schedule == expected
    assert f"{100 * pruned:.0f} %" in choice.reason
    assert ("earlier checkpoint" in choice.reason) == (pruned > 0.85)
    assert ("unknown" in choice.reason) == (original is None)


def test_the_table_covers_every_share_and_rises() -> None:
    limits, shares = zip(*TABLE, strict=True)
    assert limits[-1] == 1.0
    assert list(limits) == sorted(limits)
    assert list(shares) == sorted(shares)


def test_a_network_with_random_weights_gets_the_usual_rate() -> None:
    assert choose_schedule(0.9, untrained()).schedule == "clr:0.1"


@pytest.mark.parametrize("epochs", [0.3, 0.5, 1, 2.49, 13, 90])
@pytest.mark.parametrize("text", ["constant:0.1", "cosine:0.1", "clr:0.1", "slr", "step:0=0.01,0.25=0.1"])
def test_the_dense_training_s_highest_rate_is_exact_after_a_fraction_of_an_epoch_too(text: str, epochs: float) -> None:
    original = parse_schedule(text, epochs=epochs)
    assert dense_rate(original) == 0.1
    assert choose_schedule(1.0, original).schedule == "clr:0.1"
