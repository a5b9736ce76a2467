"""Options of low-rank decomposition. Importing this module imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunec.passes.allocation.goals import Goals
from prunec.passes.errors import UsageError
from prunec.passes.prune_filters import PruneFilters
from prunec.passes.ratios import exact

if TYPE_CHECKING:
    from prunec.passes.base import PassResult
    from prunec.passes.program import Program


@dataclass(frozen=True)
class Decompose:
    """Put two layers of low rank in the place of one: a convolution to few channels and one of 1x1, or two linear ones.

    The product of their weights is the best approximation of the layer's of that rank, by the singular value
    decomposition; of its full rank it is the weight itself. Grouped and transposed convolutions, recurrent layers, and
    layers whose weight is tied, computed or masked stay whole.

    Attributes:
        ratio: Share of the multiply-accumulates that each layer loses at least, or shares by glob over module paths
            (the last match counts; what none matches stays whole).
        rank: Rank of each layer that saves multiply-accumulates by it, or ranks by glob; those that a glob names are
            taken as they are, up to the full rank.
        speedup: MACs before over MACs after, at least: ranks are chosen for the whole network, each step what loses the
            least share of a weight's squared norm for what it saves.
        round_to: Ranks that are chosen are multiples of this, in layers that have such a rank.
        ignore: Globs of layers, or "stem" or "classifier", that stay whole.
    """

    ratio: float | Mapping[str, float] | None = None
    rank: int | Mapping[str, int] | None = None
    speedup: float | None = None
    round_to: int = 1
    ignore: tuple[str, ...] = ()

    name: ClassVar[str] = "decompose"

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.ratio, self.rank, self.speedup)) != 1:
            raise UsageError("decompose needs one of ratio, rank and speedup.", hint="For example speedup=1.5.")
        for ratio in self.ratio.values() if isinstance(self.ratio, Mapping) else [self.ratio or 0.0]:
            exact(ratio)
        for rank in self.rank.values() if isinstance(self.rank, Mapping) else [1 if self.rank is None else self.rank]:
            if rank < 1:
                raise UsageError(f"decompose: a rank is {rank}, expected at least 1.")
        if self.round_to < 1:
            raise UsageError(f"decompose: round_to is {self.round_to}, expected at least 1.")
        Goals(speedup=self.speedup)

    def run(self, program: "Program", ranks: Mapping[str, int] | None = None) -> "PassResult":
        """Decompose layers of a program.

        Args:
            program: The program, which stays as it is.
            ranks: Ranks by the names of weights that were chosen before; without them they are chosen.

        Raises:
            UsageError: A glob matches no layer or none that can be decomposed, a rank is more than the full one, or the
                speed-up can't be reached.
            InputError: A weight's values aren't finite.
        """
        from prunec.passes.decomposition import decompose_layers

        return decompose_layers(program, self, ranks)


def decomposes(options: object) -> bool:
    """Whether a step of these options puts two layers in the place of one."""
    return isinstance(options, Decompose) or (isinstance(options, PruneFilters) and options.allocation == "joint")
