"""Trainability accuracy: mean test accuracy over the first stage, as three published curves have it."""

import pytest

from prunec.compiler.recovery import parse_schedule
from prunec.compiler.recovery.trainability import trainability_accuracy
from prunec.passes.unknown import reason_of

#: Top-1 by epoch of the first stage, read off the figures of Wang, Qin, Bai, Fu 2023 (ResNet-34, ImageNet100).
CURVES = {
    "P60F60,1e-3": (
        "19.84,30.12,36.84,43.18,46.64,50.06,52.22,53.84,55.74,57.36,58.54,60.02,61.02,62.00,62.08,62.80,62.94,64.60,"
        "65.10,65.28,66.02,66.88,67.04,67.04,66.66,67.98,67.78,68.66,68.38,69.02",
        58.19,
    ),
    "P30F90,1e-2": (
        "44.68,55.58,59.08,58.84,63.82,63.46,64.44,65.00,68.24,67.34,68.20,68.32,68.38,69.00,70.08,69.52,70.08,70.82,"
        "69.78,69.72,70.22,70.94,72.20,71.80,72.52,72.84,72.72,71.34,72.98,71.54",
        67.45,
    ),
    "P90F30,1e-4": ("5.56,7.60,9.70,11.40,13.20,15.56,17.48,18.68,20.00,21.54,22.84,24.48,25.78,27.08,28.12", 17.93),
}


@pytest.mark.parametrize("text", CURVES)
def test_published_curves(text: str) -> None:
    curve, expected = CURVES[text]
    schedule = parse_schedule(text)
    values = [float(value) / 100 for value in curve.split(",")]
    assert schedule.first_stage_epochs == len(values)
    found = trainability_accuracy(schedule, [*values, 0.99])
    assert isinstance(found, float)
    assert 100 * found == pytest.approx(expected, abs=0.01)


def test_schedules_without_a_constant_first_stage_have_none() -> None:
    found = trainability_accuracy(parse_schedule("cosine:0.1", epochs=3), [0.1, 0.2, 0.3])
    assert "cosine:0.1 has no first stage" in reason_of(found)


def test_a_training_that_ended_within_its_first_stage_has_none() -> None:
    found = trainability_accuracy(parse_schedule("step:0=0.1,3=0.01", epochs=4), [0.1, 0.2])
    assert "ended after epoch 2, within the first stage" in reason_of(found)
