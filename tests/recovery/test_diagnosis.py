"""Whether a retraining converged, by its curve; and the schedule where a recipe names none."""

from dataclasses import replace

import pytest

from prunec.compiler.recovery.default_schedule import TABLE, choose_schedule
from prunec.compiler.recovery.diagnosis import Probe, diagnose, probe_rate
from prunec.compiler.recovery.epoch_record import EpochRecord
from prunec.compiler.recovery.schedules import parse_schedule, untrained

STEPS = parse_schedule("step:0=0.01,6=0.001,9=1e-4", epochs=12)


def curve(points: list[float], train: float | None = None) -> list[EpochRecord]:
    """Epochs of this accuracy in percent on validation and test data, and, at the end, on the training data."""
    records = [
        EpochRecord(e, STEPS.learning_rate(e - 1), 0.5, train=p / 100, validation=p / 100, test=p / 100, seconds=1.0)
        for e, p in enumerate(points, 1)
    ]
    return [*records[:-1], replace(records[-1], train=train / 100)] if train is not None else records


def test_a_curve_that_has_settled_by_the_dense_accuracy_is_converged() -> None:
    found = diagnose(STEPS, curve([80, 86, 88, 89, 89.2, 89.3, 90.5, 90.6, 90.6, 90.8, 90.8, 90.8]), 0.91)
    assert found.verdict == "converged"
    assert "0.2 points below" in str(found)


def test_a_stage_that_decayed_while_accuracy_rose_is_named_with_what_to_change() -> None:
    found = diagnose(STEPS, curve([60, 62, 64, 66, 68, 70, 71, 71, 71, 71, 71, 71]), 0.91)
    assert found.verdict == "under-trained"
    assert "decayed after epoch 6 while accuracy still rose 2.0 points per epoch" in found.explanation
    assert "lengthen stage 1 by 10 epochs, or start at 1e-1" in found.explanation


def test_a_run_that_ends_while_accuracy_rises_is_under_trained() -> None:
    constant = parse_schedule("constant:1e-3", epochs=6)
    found = diagnose(constant, curve([20, 25, 30, 35, 40, 45]), 0.91)
    assert found.verdict == "under-trained"
    assert "training ended while accuracy still rose 5.0 points per epoch" in found.explanation


def test_a_network_that_settles_low_on_its_training_data_too_is_over_pruned() -> None:
    found = diagnose(STEPS, curve([50, 58, 60, 60.5, 60.6, 60.6, 62, 62, 62, 62, 62, 62], train=61), 0.91)
    assert found.verdict == "over-pruned"
    assert "prune less" in found.explanation


def test_a_network_that_fits_its_training_data_lacks_no_filters() -> None:
    found = diagnose(STEPS, curve([70, 78, 80, 80.5, 80.6, 80.6, 82, 82, 82, 82, 82, 82], train=95), 0.91)
    assert found.verdict == "converged"
    assert "13.0 points above the test data" in found.explanation


def test_a_rise_that_leads_nowhere_near_shows_no_lack_of_epochs() -> None:
    slow = [40, 42, 43, 43.8, 44.5, 45.2, 45.9, 46.6, 47.2, 47.5, 47.6, 47.6]
    assert diagnose(STEPS, curve(slow, train=47), 0.91).verdict == "over-pruned"


def test_noise_is_no_rise() -> None:
    noisy = [88, 90, 88, 91, 87, 91, 90, 90, 90, 90, 90, 90.0]
    assert diagnose(STEPS, curve(noisy), 0.91).verdict == "converged"


@pytest.mark.parametrize(("gain", "verdict"), [(5.0, "under-trained"), (0.5, "over-pruned"), (-60.0, "over-pruned")])
def test_a_probe_tells_slow_from_over_pruned(gain: float, verdict: str) -> None:
    settled = curve([60] * 12, train=60)
    found = diagnose(STEPS, settled, 0.91, Probe(3, 1e-3, gain))
    assert found.verdict == verdict


def test_a_probe_runs_at_ten_times_the_last_rates() -> None:
    assert probe_rate(STEPS, 12) == pytest.approx(10 * (1e-3 + 1e-4) / 2)
    assert probe_rate(parse_schedule("constant:1e-4", epochs=5), 5) == pytest.approx(1e-3)
    cosine = parse_schedule("cosine:0.1", epochs=10)
    assert 0 < probe_rate(cosine, 10) < 0.2


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
