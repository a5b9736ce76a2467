from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a learning curve.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        learning_rate: Learning rate at its start.
        train_loss: Mean loss over its steps, with distillation and hooks.
        train: Mean metric over its steps, of the network as it was then, in training form, on augmented data.
        validation: Metric on the validation data after it, 0 to 1.
        test: Metric on the test data after it; it is only watched, and nothing is chosen by it.
        seconds: Duration, evaluation included.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train: float
    validation: float
    test: float
    seconds: float
