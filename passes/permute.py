"""Options of channel permutation: input channels in an order in which 2:4 keeps more magnitude."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.errors import UsageError
from prunec.passes.seeds import check_seed

if TYPE_CHECKING:
    from prunec.passes.base import PassResult
    from prunec.passes.program import Program


@dataclass(frozen=True)
class Permute:
    """Reorder coupled channels so that 2:4 masks along them keep more magnitude.

    The layers that read one group of channels are searched together. A group whose order would cost one of them
    magnitude keeps its order.

    Attributes:
        seconds: Wall-clock time for all searches; what can't be finished in it is cut short and reported so.
        ignore: Globs of layers, or "stem" or "classifier", that will be left dense.
        seed: Seed of the searches; None for the seed of the run, which is 0 where the pass runs alone.
    """

    seconds: float = 60.0
    ignore: tuple[str, ...] = ()
    seed: int | None = None

    name: ClassVar[str] = "permute"

    def __post_init__(self) -> None:
        if not 0 < self.seconds < float("inf"):
            raise UsageError(f"permute: seconds is {self.seconds}.", hint="For example seconds=60.")
        check_seed(self.name, self.seed)

    def run(self, program: "Program") -> "PassResult":
        """Permute a program.

        Raises:
            UsageError: A glob of ``ignore`` matches no layer.
            NumericMismatchError: The example's outputs can't be compared.
        """
        from prunec.passes.permutation import permute

        return permute(program, self.seconds, self.ignore, self.seed or 0)
