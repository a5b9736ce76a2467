"""The state of a training in a file, from which it goes on as if it had never stopped."""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prunec.compiler.recovery.processes import Processes
from prunec.passes.errors import InputError, first_line

Identity = Mapping[str, object]


@dataclass(frozen=True)
class StateFile:
    """Where the state of a training is kept.

    Attributes:
        path: of the file; its folder is made when the first state is written.
        identity: everything that makes this training what it is: a state of another one is refused.
        processes: that train together; the first one reads and writes.
        every_steps: how often within an epoch the state is written; it always is after an epoch.
    """

    path: Path
    identity: Identity
    processes: Processes
    every_steps: int | None = None

    def is_due(self, step: int) -> bool:
        """Whether the state is to be written before this step of an epoch."""
        return self.every_steps is not None and step > 0 and step % self.every_steps == 0

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace what the file holds; at any moment it holds one whole state."""
        if self.processes.rank != 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f"{self.path.name}.unfinished")
        with unfinished.open("wb") as file:
            torch.save({"identity": dict(self.identity), "state": dict(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)

    def read(self) -> dict[str, Any] | None:
        """The state, None where there is no file.

        Raises:
            InputError: the file can't be read, or is of another training.
        """
        held: dict[str, Any] | None = self.processes.from_main(self._held())
        if held is None:
            return None
        differences = [
            f"{key} was {_shown(held['identity'], key)} and is {_shown(self.identity, key)}"
            for key in sorted(held["identity"].keys() | self.identity.keys())
            if held["identity"].get(key) != self.identity.get(key)
        ]
        if differences:
            raise InputError(
                f"{self.path} is the state of another training: {'; '.join(differences)}.",
                hint="Go on with the same recipe, data and number of processes, or start anew without --resume.",
            )
        state: dict[str, Any] = held["state"]
        return state

    def _held(self) -> dict[str, Any] | None:
        if self.processes.rank != 0 or not self.path.is_file():
            return None
        try:
            held: dict[str, Any] = torch.load(self.path, weights_only=True, map_location="cpu")
            return {"identity": held["identity"], "state": held["state"]}
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{self.path} can't be read as the state of a training: {first_line(error)}",
                hint="Remove it and start anew.",
            ) from error


def _shown(identity: Identity, key: str) -> str:
    """A value, hashes shortened."""
    text = str(identity.get(key, "not given"))
    return f"{text[:12]}..." if len(text) == 64 else text
