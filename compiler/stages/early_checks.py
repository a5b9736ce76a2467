"""Refusals that need the engine's kind and the gates: from names alone, then with what this machine has."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from prunec.compiler.facts.settings import Settings
from prunec.compiler.gates.doubts import strict_gates
from prunec.compiler.gates.foresight import refuse_foreseen
from prunec.compiler.gates.gate import Asked, Gate
from prunec.compiler.gates.gate_catalogue import asked_gates
from prunec.compiler.machine.writable import check_file_can_be_written
from prunec.compiler.pipeline.pipeline import Pipeline, check_known
from prunec.passes.errors import MissingDependencyError, PrunecError
from prunec.runtime.engines.catalogue import candidate_engines, choose_engine, preferred_engine
from prunec.runtime.engines.names import ENGINES, MODEL_ITSELF
from prunec.runtime.target import Target

if TYPE_CHECKING:
    from prunec.runtime.engines.protocol import EngineKind

_NO_ENGINE = "--no-engine leaves the engine out."


def check_names(pipeline: Pipeline, target: Target, settings: Settings, has_data: bool) -> None:
    """Refuse what can't be asked for of the engine and the gates of a target, whatever machine this is.

    Imports no torch, where no engine of a plug-in does.

    Raises:
        PrunecError: No engine of the target takes its options, the timing cache can't be written, a step's name isn't
            known, or a gate can't pass.
    """
    for name in settings.print_after:
        check_known(name)
    kinds = candidate_engines(target, settings.engine_options)
    refusals = [error for kind in kinds for error in _refusals(kind, target, settings)]
    if len(refusals) == len(kinds):
        raise refusals[0]
    if (cache := settings.engine_options.timing_cache) is not None:
        check_file_can_be_written(cache, f"--timing-cache {cache}")
    is_timed = settings.build_engine or any(kind.name == MODEL_ITSELF for kind in kinds)
    asked = Asked(pipeline, has_data, "" if settings.build_engine else _NO_ENGINE, "" if is_timed else _NO_ENGINE)
    _refuse(settings, asked)


def check_here(pipeline: Pipeline, target: Target, settings: Settings, has_data: bool) -> None:
    """Refuse what can't be asked for on this machine; asks torch for the devices that are here.

    Raises:
        PrunecError: The engine doesn't take its options, or a gate can't pass.
    """
    from prunec.runtime.engines.measuring import not_run_here

    kind = preferred_engine(target, settings.engine_options)
    with ENGINES.blame(kind.name):
        kind.check(target, settings.engine_options, settings.latency_batch)
    no_engine, asked = _why_no_engine(target, settings), Asked(pipeline, has_data)
    if kind.name == MODEL_ITSELF:
        _refuse(settings, asked)
        return
    with ENGINES.blame(kind.name):
        outside = "" if no_engine else kind.outside_support(target)
        untimed = "" if no_engine or kind.runs_here(target) else f"its figure {not_run_here(kind, target).reason}"
    _refuse(settings, replace(asked, untimed=no_engine or untimed, outside_support=outside))


def _refusals(kind: "EngineKind", target: Target, settings: Settings) -> Iterator[PrunecError]:
    """The error, where there is one, by which a kind of engine refuses its options."""
    try:
        with ENGINES.blame(kind.name):
            kind.check(target, settings.engine_options, settings.latency_batch)
    except PrunecError as error:
        yield error


def _why_no_engine(target: Target, settings: Settings) -> str:
    """Why this machine builds no engine of a target, as a sentence; empty where it may."""
    if not settings.build_engine:
        return _NO_ENGINE
    try:
        choose_engine(target, settings.engine_options)
    except MissingDependencyError as error:
        return error.message
    return ""


def _refuse(settings: Settings, asked: Asked) -> None:
    gates = asked_gates(settings)
    judged: list[tuple[Gate, bool]] = [(gate, settings.allow_unknown) for gate in gates]
    further = strict_gates(gates) if settings.strict else []
    refuse_foreseen([*judged, *((gate, True) for gate in further)], asked)
