"""The range of seeds. Imports no torch."""

from prunec.passes.errors import UsageError

#: Largest seed that every library takes.
MAX_SEED = 2**63 - 1


def check_seed(where: str, seed: int | None) -> None:
    """Raise `UsageError` where a seed, if there is one, is none that every library takes."""
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise UsageError(f"{where}: seed is {seed}.", hint=f"Expected a whole number from 0 to {MAX_SEED}.")
