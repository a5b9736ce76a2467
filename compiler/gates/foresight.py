"""Refusal of gates that can be told to fail before any work. Imports no torch."""

from collections.abc import Iterable
from typing import Any

from prunec.compiler.gates.gate import Asked, Foreseen, Gate
from prunec.compiler.gates.gate_catalogue import GATES
from prunec.passes.errors import PrunecError, UsageError


def refuse_foreseen(gates: Iterable[tuple[Gate, bool]], asked: Asked) -> None:
    """Refuse a compile that fails by a gate whatever comes of it.

    Args:
        gates: The gates, each with whether it passes where its figure isn't known.
        asked: What was asked for.

    Raises:
        PrunecError: A gate can't pass; the error has its exit code.
    """
    for gate, allow_unknown in gates:
        foreseen = _foreseen(gate, asked)
        if foreseen is not None and (foreseen.fails or not allow_unknown):
            kinds = {kind.exit_code: kind for kind in PrunecError.__subclasses__()}
            raise kinds.get(gate.exit_code, UsageError)(
                f"The gate {gate.name} can't pass: {foreseen.reason}", hint=foreseen.hint
            )


def _foreseen(gate: Gate, asked: Asked) -> Foreseen | None:
    with GATES.blame(gate.name):
        foreseen: Any = getattr(gate, "foreseen", lambda _: None)(asked)
    if foreseen is None or isinstance(foreseen, Foreseen):
        return foreseen
    raise UsageError(f"The gate {gate.name} foresees {foreseen!r}; expected a Foreseen or None.")
