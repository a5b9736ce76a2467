"""Catalogues of things that are known by name: prunec's own, and those that other packages register as entry points.

Nothing is imported before it is asked for by name, so a plug-in that can't be imported costs its own name only.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from prunec.passes.errors import MissingDependencyError, PrunecError, UsageError, did_you_mean, first_line


@dataclass(frozen=True)
class PlugIn:
    """An extension by the ``name`` that users ask for, which a distribution registers at ``module:attribute``."""

    name: str
    package: str
    location: str


@dataclass(frozen=True)
class Catalogue:
    """Everything of one kind that can be asked for by name.

    Attributes:
        kind: Noun for one of the things in messages, such as "criterion".
        group: Entry point group under which other packages register theirs.
        own: Location of each of prunec's own things, ``module:attribute`` by name.
    """

    kind: str
    group: str
    own: Mapping[str, str]

    def names(self) -> list[str]:
        """All names, prunec's own first; nothing is imported."""
        return list(dict.fromkeys([*self.own, *(plug_in.name for plug_in in plug_ins(self.group))]))

    def load(self, name: str) -> Any:
        """The thing of this name.

        Raises:
            UsageError: There is no thing of this name, or several packages bring one.
            MissingDependencyError: The package that brings it can't be imported, or brings something of another name.
        """
        candidates = [plug_in for plug_in in plug_ins(self.group) if plug_in.name == name]
        if name in self.own:
            candidates.insert(0, PlugIn(name, "prunec", self.own[name]))
        if not candidates:
            raise UsageError(f"There is no {self.kind} {name!r}.", hint=did_you_mean(name, self.names()))
        if len(candidates) > 1:
            packages = " and ".join(candidate.package for candidate in candidates)
            raise UsageError(
                f"The {self.kind} {name!r} is brought by {packages}: it isn't clear which is meant.",
                hint="Uninstall one of them, or rename the entry point of one.",
            )
        return self._imported(candidates[0])

    @contextmanager
    def blame(self, name: str) -> Iterator[None]:
        """Say of errors within that they are a plug-in's, where the thing of this name is none of prunec's own.

        Raises:
            UsageError: Code of the plug-in raised an error that is not prunec's, or asked to exit.
        """
        try:
            yield
        except (PrunecError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            if name in self.own:
                raise
            packages = [plug_in.package for plug_in in plug_ins(self.group) if plug_in.name == name]
            package = packages[0] if packages else "your code"
            raise UsageError(
                f"The {self.kind} {name!r} of {package} failed: {type(error).__name__}: {first_line(error)}",
                hint=f"This is a fault of {package}, not of prunec: leave it out, or tell those who wrote it.",
            ) from error

    def _imported(self, plug_in: PlugIn) -> Any:
        module, _, attribute = plug_in.location.partition(":")
        if plug_in.package == "prunec":
            return getattr(importlib.import_module(module), attribute)
        try:
            thing = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            raise MissingDependencyError(
                f"The {self.kind} {plug_in.name!r} of {plug_in.package} can't be imported from {plug_in.location}: "
                f"{type(error).__name__}: {first_line(error)}",
                hint=f"Mend or uninstall {plug_in.package}; nothing else of prunec needs it.",
            ) from error
        if getattr(thing, "name", plug_in.name) != plug_in.name:
            raise MissingDependencyError(
                f"{plug_in.package} registers the {self.kind} {plug_in.name!r}, and what {plug_in.location} holds is "
                f"named {thing.name!r}.",
                hint="The entry point and the class must have one name.",
            )
        return thing


@cache
def plug_ins(group: str) -> tuple[PlugIn, ...]:
    """Extensions that installed packages register in an entry point group; nothing of theirs is imported."""
    from importlib import metadata  # slow to import, and --help doesn't ask for plug-ins

    return tuple(
        PlugIn(entry.name, entry.dist.name if entry.dist is not None else "an unnamed package", entry.value)
        for entry in metadata.entry_points(group=group)
    )
