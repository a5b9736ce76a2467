"""Result of a pass. A pass is a frozen dataclass with a name, its options as fields, and ``run(program)``."""

from dataclasses import dataclass, field
from typing import Any

from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program


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
    """

    program: Program
    modified: bool
    stats: dict[str, Any] = field(default_factory=dict)
    plan: PruningPlan | None = None
    compensated: Program | None = None
