"""All gates by name, and those that a compile was asked for. Imports no torch."""

import math
from dataclasses import is_dataclass
from typing import Any

from prunec.compiler.facts.settings import Settings
from prunec.compiler.gates.doubts import (
    CalibrationLimitMet,
    MasksRunFaster,
    MaxAskedMsRatio,
    MinAskedSpeedupPercent,
    NotSlower,
    VendorSupport,
)
from prunec.compiler.gates.gate import Gate
from prunec.compiler.gates.own_gates import (
    EngineBuilt,
    MaxDropPoints,
    MaxLatencyMs,
    MaxOnnxVsTorch,
    MaxSizeMb,
    MinDonePercent,
    MinSpeedup,
    RequireSparsePercent,
)
from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.passes.notation import Item, parse_items
from prunec.passes.options import with_options
from prunec.passes.plugins import Catalogue

_OWN = (
    MaxOnnxVsTorch,
    EngineBuilt,
    MinDonePercent,
    MaxDropPoints,
    MinSpeedup,
    MaxLatencyMs,
    MaxSizeMb,
    RequireSparsePercent,
    NotSlower,
    MinAskedSpeedupPercent,
    MaxAskedMsRatio,
    CalibrationLimitMet,
    VendorSupport,
    MasksRunFaster,
)
#: Exit codes that a gate may have: 0 is success, 1 a bug of prunec, and shells give those above.
_EXIT_CODES = range(2, 126)
GATES = Catalogue("gate", "prunec.gates", {kind.name: f"{kind.__module__}:{kind.__qualname__}" for kind in _OWN})


def asked_gates(settings: Settings) -> list[Gate]:
    """The gates that a compile is judged by, in the order of the report.

    Raises:
        UsageError: A gate that the settings name as text isn't known, is asked for twice, or a limit is out of range.
        MissingDependencyError: A plug-in's gate can't be imported, or is none.
    """
    gates: list[Gate] = [MaxOnnxVsTorch(), *([EngineBuilt()] if settings.build_engine else [])]
    gates.append(MinDonePercent(0) if settings.allow_noop else MinDonePercent())
    by_limit = (MaxDropPoints, MinSpeedup, MaxLatencyMs, MaxSizeMb, RequireSparsePercent)
    limits = {kind: getattr(settings, kind.name) for kind in by_limit}
    gates += [kind(limit) for kind, limit in limits.items() if limit is not None]
    gates += [gate_of(item) for text in settings.gates for item in parse_items(text)]
    names = [gate.name for gate in gates]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"The gate {twice[0]!r} is asked for twice.", hint="Give each gate one limit.")
    return gates


def gate_of(item: Item) -> Gate:
    """The gate that a text asks for by name and options.

    Raises:
        UsageError: There is none of this name, or an option can't be.
        MissingDependencyError: A plug-in's gate can't be imported, or is none.
    """
    kind = gate_class(item.name)
    with GATES.blame(item.name):
        gate: Gate = with_options(kind, item.name, item.options)
        limit = gate.limit
    if not isinstance(limit, int | float) or not math.isfinite(limit):
        raise UsageError(f"The limit of the gate {item.name} is {limit}; expected a finite number.")
    return gate


def gate_class(name: str) -> type[Gate]:
    """The class of the gates of a name.

    Raises:
        UsageError: There is none of this name, or several packages bring one.
        MissingDependencyError: A plug-in's gate can't be imported, or is none.
    """
    kind = GATES.load(name)
    if wrong := _flaw(kind):
        raise MissingDependencyError(
            f"The entry point {name!r} of the group {GATES.group} holds {kind!r}: {wrong}.",
            hint="Mend or uninstall the package that registers it.",
        )
    return kind  # type: ignore[no-any-return]


def _flaw(kind: Any) -> str:
    """What a class lacks to be that of a gate; empty where it lacks nothing."""
    if not (isinstance(kind, type) and is_dataclass(kind) and kind.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        return "expected a frozen dataclass"
    if absent := [text for text in ("name", "label", "unit") if not isinstance(getattr(kind, text, None), str)]:
        return f"expected text as its {absent[0]}"
    has_limit = hasattr(kind, "limit") or "limit" in kind.__dataclass_fields__
    if not has_limit or not callable(getattr(kind, "value", None)):
        return "expected a field limit and a method value"
    code = getattr(kind, "exit_code", None)
    if not isinstance(code, int) or code not in _EXIT_CODES:
        return f"its exit_code is {code!r}, expected {_EXIT_CODES[0]} to {_EXIT_CODES[-1]}"
    return ""
