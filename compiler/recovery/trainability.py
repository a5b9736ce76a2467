"""Trainability accuracy: how well a pruned network can be trained, under one schedule."""

import math
from collections.abc import Sequence

from prunec.compiler.recovery.schedule_curves import Schedule


def trainability_accuracy(schedule: Schedule, test: Sequence[float]) -> float | None:
    """Mean test accuracy over the epochs of the first stage of constant learning rate.

    It ranks pruned networks under one schedule, and says nothing across schedules (Wang, Qin, Bai, Fu, "Why is the
    State of Neural Network Pruning so Confusing?", 2023, eq. 1 and section 5.1).

    Args:
        schedule: of the retraining.
        test: accuracy after each epoch, at least those of the first stage.

    Returns:
        A fraction like ``test``; None where the schedule has no such stage.
    """
    epochs = schedule.first_stage_epochs
    return None if epochs is None else math.fsum(test[:epochs]) / epochs
