"""Options of the command line on how to read a checkpoint. Imports no torch."""

from dataclasses import dataclass

from prunec.passes.errors import UsageError
from prunec.passes.network_inputs import MAX_SIZE, check_samples_size


@dataclass(frozen=True)
class ModelOptions:
    """Options of the command line on how to read a checkpoint.

    Attributes:
        factory: "module:callable", relative to the working directory; overrides the project file's.
        shapes: Shape of one sample of each input; overrides the project file's.
        trust: Whether code that the checkpoint brings may run.
        weights: Name of the weights to take, where a file holds several; overrides the project file's.
    """

    factory: str | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None
    trust: bool = False
    weights: str = ""


def parse_shape(text: str) -> tuple[int, ...]:
    """``1,28,28`` as a tuple.

    Raises:
        UsageError: The text is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 20 and 0 < int(part) <= MAX_SIZE for part in parts):
        raise UsageError(
            f"The input shape {text!r} is not of the form 3,224,224.",
            hint="Give the sizes of one sample, without the batch; repeat --input for several inputs.",
        )
    shape = tuple(map(int, parts))
    try:
        check_samples_size(shape)
    except ValueError as error:
        raise UsageError(f"The input shape {text}: {error}.") from error
    return shape
