"""Where a training stands among all its steps: lengths of papers are taken as shares of these."""

from prunec.compiler.recovery.running_hook import Moment, TrainingContext


def all_steps(training: TrainingContext) -> int:
    """Number of steps of the whole training."""
    return training.options.epochs * training.steps_per_epoch


def steps_done(training: TrainingContext, moment: Moment) -> int:
    """Number of steps that are done with the one under way."""
    return (moment.epoch - 1) * training.steps_per_epoch + moment.step + 1


def rates(training: TrainingContext) -> list[float]:
    """The learning rate of every step."""
    per_epoch = training.steps_per_epoch
    return [training.schedule.learning_rate(step / per_epoch) for step in range(all_steps(training))]
