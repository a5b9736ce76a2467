"""Engine kinds by name, and which of them a target gets on this machine. Imports no torch before a kind is loaded."""

from inspect import isabstract

from prunec.passes.errors import MissingDependencyError, UsageError
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineKind
from prunec.runtime.target import Target


def load_engine(name: str) -> EngineKind:
    """The engine kind of a name.

    Raises:
        UsageError: There is none of this name, or several packages bring one.
        MissingDependencyError: The plug-in that brings it can't be imported, or brings no engine kind.
    """
    kind = ENGINES.load(name)
    is_kind = isinstance(kind, type) and issubclass(kind, EngineKind)
    if not is_kind or isabstract(kind) or not (hasattr(kind, "name") and hasattr(kind, "title")):
        raise MissingDependencyError(
            f"The entry point {name!r} of the group {ENGINES.group} holds {kind!r}; expected a subclass of "
            f"{EngineKind.__module__}.{EngineKind.__name__} with a name, a title and all its abstract methods.",
            hint="Mend or uninstall the package that registers it.",
        )
    with ENGINES.blame(name):
        return kind()  # type: ignore[no-any-return]


def candidate_engines(target: Target, options: EngineOptions) -> list[EngineKind]:
    """The engine kinds that may build for a target, the preferred one first: the one asked for, or the device's.

    Raises:
        UsageError: The engine that is asked for isn't known, or doesn't serve the target.
        MissingDependencyError: A plug-in can't be imported.
    """
    if not options.engine:
        return [load_engine(name) for name in target.info.engines]
    asked = load_engine(options.engine)
    with ENGINES.blame(asked.name):
        is_served = asked.serves(target)
    if not is_served:
        raise UsageError(
            f"{asked.title} builds no engine for {target}.",
            hint=f"Engines of {target.info.title}: {', '.join(target.info.engines)}.",
        )
    return [asked]


def choose_engine(target: Target, options: EngineOptions) -> EngineKind:
    """The engine kind that builds for a target on this machine: the first candidate that is available.

    Raises:
        UsageError: The causes are those of `candidate_engines`.
        MissingDependencyError: None is available; the hint is the line to run, here or on the device.
    """
    candidates = candidate_engines(target, options)
    refusals = []
    for kind in candidates:
        with ENGINES.blame(kind.name):
            refusal = kind.unavailable(target, options)
        if refusal is None:
            return kind
        if not isinstance(refusal, MissingDependencyError):
            raise UsageError(f"The engine {kind.name!r} gave {refusal!r} for why it is unavailable; expected an error.")
        refusals.append(refusal)
    raise refusals[-1]


def preferred_engine(target: Target, options: EngineOptions) -> EngineKind:
    """The engine kind of `choose_engine`, or where none is available the first candidate, whose words the report uses.

    Raises:
        UsageError: The causes are those of `candidate_engines`.
    """
    try:
        return choose_engine(target, options)
    except MissingDependencyError:
        return candidate_engines(target, options)[0]
