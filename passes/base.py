"""What a pass is: a frozen dataclass whose fields are its options, from program to program."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from prunec.passes.plan import PruningPlan
from prunec.passes.program import Program


@dataclass(frozen=True)
class PassResult:
    """What a pass gives back.

    Attributes:
        program: the new program; unchanged tensors may be shared with the old one, which is never changed.
        modified: whether the program differs from the one that went in.
        stats: what was done, in plain JSON values.
        plan: the indices kept, from passes that remove or reorder slices.
    """

    program: Program
    modified: bool
    stats: dict[str, Any] = field(default_factory=dict)
    plan: PruningPlan | None = None


class Pass(Protocol):
    """A step that needs nothing but the program. Implementations are frozen dataclasses."""

    name: ClassVar[str]

    def run(self, program: Program) -> PassResult:
        """Transform a program; the input program stays as it is."""
        ...
