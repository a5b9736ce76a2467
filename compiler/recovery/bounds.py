"""Bounds of what is asked of a training, beyond any use: a slip of the pen shall not take all memory."""

from prunec.passes.boundary import shortened
from prunec.passes.errors import UsageError

#: Epochs of a training.
MAX_EPOCHS = 100_000
#: Samples of a batch.
MAX_BATCH = 1 << 20
#: Characters of a schedule.
MAX_SCHEDULE_CHARACTERS = 4000
#: Times that a schedule may be made longer by ``+60``.
MAX_LENGTHENED = 16


def check_bounds(text: str, epochs: float | None) -> None:
    """Refuse a schedule, without blanks, that is too long to be one, and lengths of a run that can't be.

    Raises:
        UsageError: The text or the run is too long, or the run has no epochs.
    """
    if epochs is not None and not 0 < epochs <= MAX_EPOCHS:
        raise UsageError(f"A run must have more than 0 epochs and at most {MAX_EPOCHS}, got {shortened(str(epochs))}.")
    if len(text) > MAX_SCHEDULE_CHARACTERS or text.count("+") > MAX_LENGTHENED:
        raise UsageError(
            f"The schedule {text[:40]!r}... is too long: it has {len(text)} characters, and {text.count('+')} times a "
            f"plus; at most {MAX_SCHEDULE_CHARACTERS} and {MAX_LENGTHENED} are read."
        )
