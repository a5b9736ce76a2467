"""Judging a report by gates: verdicts, exit code, status."""

import math
from collections.abc import Sequence
from typing import Any

from prunec.compiler.gates.doubts import doubts, strict_gates
from prunec.compiler.gates.gate import Gate
from prunec.compiler.gates.gate_catalogue import GATES, gate_of
from prunec.compiler.gates.own_gates import EngineBuilt
from prunec.compiler.report.engine_parts import GatePart, GateVerdict
from prunec.compiler.report.report import Report
from prunec.passes.errors import PrunecError
from prunec.passes.notation import Item, parse_items, print_item
from prunec.passes.options import changed_options
from prunec.passes.unknown import Unknown


def judged(report: Report, gates: Sequence[Gate], allow_unknown: bool, strict: bool = False) -> Report:
    """The report with the verdicts of gates, and the exit code that follows: the lowest of the gates that fail.

    Args:
        report: Any report; the gates in it are replaced.
        gates: The gates.
        allow_unknown: Whether a gate passes whose value isn't known.
        strict: Whether what no gate covers is a gate, too, which passes where its value isn't known.
    """
    further = strict_gates(gates) if strict else []
    return judged_anew(report, [*((gate, allow_unknown) for gate in gates), *((gate, True) for gate in further)])


def judged_anew(report: Report, gates: Sequence[tuple[Gate, bool]]) -> Report:
    """The report judged by gates, each with whether it passes where its value isn't known."""
    rows: list[GatePart] = []
    failing = []
    for gate, allow_unknown in gates:
        rows.append(judge(gate, report, allow_unknown))
        if rows[-1].verdict == "failed" or (rows[-1].verdict == "unknown" and not allow_unknown):
            failing.append(gate.exit_code)
    code = min(failing, default=0)
    update = {"gates": tuple(rows), "exit_code": code, "status": "FAILED" if code else "PASSED"}
    report = report.model_copy(update=update)
    return report.model_copy(update={"warnings": doubts(report)})


def gates_of(report: Report) -> list[tuple[Gate, bool]]:
    """The gates that a report was judged by, and the engine's in any case, each with whether it may be unknown.

    Raises:
        UsageError: A gate of a plug-in isn't installed.
        MissingDependencyError: A plug-in's gate can't be imported.
    """
    gates = [(gate_of_row(row), row.allow_unknown) for row in report.gates]
    if all(gate.name != EngineBuilt.name for gate, _ in gates):
        gates.append((EngineBuilt(), False))
    return gates


def judge(gate: Gate, report: Report, allow_unknown: bool = False) -> GatePart:
    """A gate's verdict on a report; unknown where the gate raises an error, or gives what is no number."""
    value = _value(gate, report)
    verdict: GateVerdict = "unknown"
    if not isinstance(value, Unknown):
        is_within = value <= gate.limit if gate.name.startswith("max_") else value >= gate.limit
        verdict = "passed" if is_within else "failed"
        if not math.isfinite(value):
            value, verdict = Unknown(f"the figure is {value}, which is not finite."), "failed"
    asked = "" if gate.name in GATES.own else print_item(gate.name, changed_options(gate))
    margin = None if isinstance(value, Unknown) else _margin(gate, report)
    return GatePart.of(gate, value=value, verdict=verdict, allow_unknown=allow_unknown, asked=asked, margin=margin)


def _margin(gate: Gate, report: Report) -> float | None:
    """Half the width of the interval of a gate's figure; None where the gate tells none, or what is no number."""
    with GATES.blame(gate.name):
        margin: Any = getattr(gate, "margin", lambda _: None)(report)
    is_number = isinstance(margin, int | float) and not isinstance(margin, bool) and math.isfinite(margin)
    return float(margin) if is_number else None


def _value(gate: Gate, report: Report) -> float | Unknown:
    try:
        with GATES.blame(gate.name):
            value: Any = gate.value(report)
            value = value.item() if hasattr(value, "item") else value  # a scalar of NumPy or torch
    except PrunecError as error:
        return Unknown(error.message)
    if isinstance(value, Unknown):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Unknown(f"the gate {gate.name} gave {value!r}, which is no number.")
    return float(value)


def gate_of_row(row: GatePart) -> Gate:
    """The gate that a row of a report tells of.

    Raises:
        UsageError: A gate of a plug-in isn't installed.
        MissingDependencyError: A plug-in's gate can't be imported.
    """
    (item,) = parse_items(row.asked) if row.asked else (Item(row.name, {"limit": row.limit}),)
    return gate_of(item)
