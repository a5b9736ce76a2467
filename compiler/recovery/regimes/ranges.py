"""Ranges of the options of regimes."""

from prunec.passes.errors import UsageError


def check_above(hook: str, **options: float) -> None:
    """Refuse options that are not numbers above 0.

    Raises:
        UsageError: One of them isn't.
    """
    for name, value in options.items():
        if not 0 < value < float("inf"):  # also refuses NaN
            raise UsageError(f"{hook}: {name} must be above 0, got {value}.")


def check_share(hook: str, **options: float) -> None:
    """Refuse options that are not numbers of at least 0 and below 1.

    Raises:
        UsageError: One of them isn't.
    """
    for name, value in options.items():
        if not 0 <= value < 1:
            raise UsageError(f"{hook}: {name} must be at least 0 and below 1, got {value}.")
