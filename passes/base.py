"""Result of a pass. A pass is a frozen dataclass with a name, its options as fields, and ``run(program)``."""

import math
from dataclasses import dataclass, field
from typing import Any

from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program


@dataclass(frozen=True)
class Aim:
    """The amount that a pass or step was asked for, and the amount that it reached.

    Attributes:
        what: What is counted, in words: "filters removed".
        asked: The amount that was asked for; 0 where nothing was.
        got: The amount that was reached; it may be more.
        reason: What kept the rest, in words; empty where nothing did.

    Raises:
        ValueError: An amount is negative or not finite.
    """

    what: str
    asked: float
    got: float
    reason: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.asked < math.inf and 0 <= self.got < math.inf):
            raise ValueError(f"amounts must be numbers of at least 0, got {self}")

    @property
    def share(self) -> float:
        """Reached over asked, 1 where nothing was asked for."""
        return self.got / self.asked if self.asked else 1.0


@dataclass(frozen=True)
class PassResult:
    """Result of a pass.

    Attributes:
        program: The new program; it may share unchanged tensors with the one that went in, which is never changed.
        modified: Whether the program differs from the one that went in.
        stats: Facts about what the pass did, as plain JSON values.
        plan: The indices that were kept, in their order; None from passes that neither remove nor reorder slices.
        compensated: The program that went in with the new values of what stays, from passes that give any: removing the
            plan's slices from it gives the new program.
        aim: What was asked for and reached; None from passes that are asked for no amount of anything.
    """

    program: Program
    modified: bool
    stats: dict[str, Any] = field(default_factory=dict)
    plan: PruningPlan | None = None
    compensated: Program | None = None
    aim: Aim | None = None
