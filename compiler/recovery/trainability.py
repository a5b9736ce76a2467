"""Trainability accuracy: how well a pruned network can be trained, under one schedule."""

import math
from collections.abc import Sequence

from prunec.compiler.recovery.schedule_curves import Schedule
from prunec.passes.unknown import Unknown


def trainability_accuracy(schedule: Schedule, test: Sequence[float]) -> float | Unknown:
    """Mean test accuracy over the epochs of the first stage of constant learning rate.

    It ranks pruned networks under one schedule, and says nothing across schedules (Wang, Qin, Bai, Fu, "Why is the
    State of Neural Network Pruning so Confusing?", 2023, eq. 1 and section 5.1).

    Args:
        schedule: The schedule of the retraining.
        test: Accuracy after each epoch, 0 to 1.

    Returns:
        A fraction from 0 to 1; unknown where the schedule has no such stage, or training ended within it.
    """
    epochs = schedule.first_stage_epochs
    if epochs is None:
        return Unknown(f"the schedule {schedule} has no first stage of constant learning rate")
    if epochs > len(test):
        return Unknown(f"training ended after epoch {len(test)}, within the first stage of the schedule {schedule}")
    return math.fsum(test[:epochs]) / epochs
