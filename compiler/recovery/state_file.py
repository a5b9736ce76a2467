"""The state of a training in a file, from which it goes on as if it had never stopped."""

import os
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunec.compiler.recovery.processes import Processes
from prunec.passes.archives import check_zip
from prunec.passes.boundary import reading, shortened
from prunec.passes.errors import InputError
from prunec.passes.tensors import check_stored

Identity = Mapping[str, object]


@dataclass(frozen=True)
class StateOptions:
    """Options of the file that keeps a training's state, so that it can go on after it was stopped.

    Attributes:
        path: The file that holds the last state; its folder is made when the first state is written.
        resume: Whether to go on from what the file holds, where it exists.
        every_steps: Number of steps within an epoch after which the state is written; it always is after an epoch.
    """

    path: Path
    resume: bool = False
    every_steps: int | None = None


@dataclass(frozen=True)
class StateFile:
    """The file of one training's state.

    Attributes:
        options: The file and its use.
        identity: Everything that makes this training what it is; a state of another one is refused.
        processes: The processes that train together; the first one reads and writes.
    """

    options: StateOptions
    identity: Identity
    processes: Processes

    def is_due(self, step: int) -> bool:
        """Whether the state is to be written before this step of an epoch."""
        every = self.options.every_steps
        return every is not None and step > 0 and step % every == 0

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace what the file holds; at any moment it holds one whole state."""
        if self.processes.rank != 0:
            return
        path = self.options.path
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            with unfinished.open("wb") as file:
                torch.save({"identity": dict(self.identity), "state": dict(state)}, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:  # a full disk, or Ctrl-C
            unfinished.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """The state to go on from; None where that isn't wanted or there is no file.

        Raises:
            InputError: The file can't be read, or is of another training.
        """
        held = self.processes.from_main(self._held()) if self.options.resume else None
        if held is None:
            return None
        identity, state = held
        differences = [
            f"{key} was {_shown(identity, key)} and is {_shown(self.identity, key)}"
            for key in sorted(identity.keys() | self.identity.keys())
            if identity.get(key) != self.identity.get(key)
        ]
        if differences:
            raise InputError(
                f"{self.options.path} is the state of another training: {'; '.join(differences)}.",
                hint="Go on with the same recipe, data and number of processes, or start anew without --resume.",
            )
        return state

    def _held(self) -> tuple[Identity, dict[str, Any]] | None:
        path = self.options.path
        if self.processes.rank != 0 or not path.exists():
            return None
        check_zip(path)
        with self.reading():
            with zipfile.ZipFile(path) as archive:
                if (broken := archive.testzip()) is not None:  # torch itself doesn't look at the checksums
                    raise ValueError(f"the checksum of {broken} in it doesn't fit")
            held = torch.load(path, weights_only=True, map_location="cpu")
            check_stored(held, path)
            return _texts(held["identity"]), held["state"]

    def reading(self) -> AbstractContextManager[None]:
        """Say of what goes wrong within that the file is no state of a training."""
        return reading(str(self.options.path), "the state of a training", hint="Remove it and start anew.")


def _texts(identity: object) -> Identity:
    if not isinstance(identity, dict) or not all(isinstance(name, str) for name in identity):
        raise ValueError("it doesn't say which training it is of")
    return identity


def _shown(identity: Identity, key: str) -> str:
    """A value as messages show it, with hashes shortened."""
    text = str(identity.get(key, "not given"))
    return f"{text[:12]}..." if len(text) == 64 else shortened(text)
