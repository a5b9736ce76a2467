"""Weights by name into a network, as strictly as torch does, after the load hooks of its modules."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from prunec.compiler.project.stored_weights import WRAPPERS, Candidate, Content, candidates
from prunec.compiler.project.weights_choice import asked_for, check_found, choice_notes, choose, source_notes
from prunec.passes.errors import InputError
from prunec.passes.user_calls import call_user_code

_SHOWN = 3


def load_state(module: nn.Module, content: Content, path: Path, asked: str = "") -> tuple[str, ...]:
    """Load the weights that a file holds for a network into it, in place.

    Every part of the file whose names are the network's behind a common prefix is tried, strictly; what fits is loaded.

    Args:
        module: The network.
        content: What the file holds.
        path: The file, for messages.
        asked: Name of the weights, where the user said which (`asked_for`).

    Returns:
        Notes on what was chosen, and done to the weights.

    Raises:
        InputError: The file holds no weights, none or several that fit; the message names the first mismatches.
    """
    _check_any(content, path)
    expected = list(module.state_dict())
    stored = {each.name: each for each in candidates(content, expected)}
    names = asked_for(list(stored), asked)
    check_found(names, asked, path, list(stored))
    for name in names:
        _share_ties(module, stored[name].state)
    attempts = {name: _load(module, stored[name].state) for name in names}
    fitting = [name for name in names if not attempts[name].problems()]
    if not fitting:
        raise _unfit(path, module, names, attempts)
    chosen = choose(_distinct(fitting, stored), path)
    if chosen != names[-1]:  # whatever fits sets every weight
        _load(module, stored[chosen].state)
    notes = _notes(content, stored[chosen], attempts[chosen])
    return (*notes, *choice_notes(chosen, fitting, stored[chosen].is_averaged_model))


def _check_any(content: Content, path: Path) -> None:
    if any(name for name in content.tensors):
        return
    keys = f"with {', '.join(map(repr, content.keys[:_SHOWN]))}" if content.keys else "of another kind, or empty"
    raise InputError(
        f"{path} holds no state_dict: expected tensors by name, got content {keys}.",
        hint="Save it with torch.save(model.state_dict(), ...).",
    )


def _share_ties(module: nn.Module, state: dict[str, Any]) -> None:
    """Give the names of one tensor its value where a file has it once, as safetensors writes it."""
    ties: dict[int, list[str]] = defaultdict(list)
    for name, value in module.state_dict(keep_vars=True).items():
        ties[id(value)].append(name)
    for names in ties.values():
        stored = [state[name] for name in names if name in state]
        if len(stored) == 1:
            state.update(dict.fromkeys(names, stored[0]))


def _distinct(names: Sequence[str], stored: dict[str, Candidate]) -> list[str]:
    """The names without those whose weights another has, too."""
    kept: list[str] = []
    for name in names:
        if not any(_equal(stored[name].state, stored[other].state) for other in kept):
            kept.append(name)
    return kept


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    return (
        isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    )


@dataclass
class _Load:
    """One load: what each module was about to take, after the load hooks before it.

    `missing` and `unexpected` are torch's own lists, which are one for the whole load.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    converted: set[str] = field(default_factory=set)
    error: str = ""

    def look(self, module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A pre-hook of torch, the last of a module's."""
        self.missing, self.unexpected, errors = rest[-3:]
        for key, own in (*module._parameters.items(), *module._buffers.items()):
            name, stored = prefix + key, state.get(prefix + key)
            if own is None or not isinstance(stored, Tensor) or is_lazy(own):
                continue
            if kind := _other_kind(stored, own):
                self.kinds.append(f"{name} (got {kind}, expected {_type(own)})")
                errors.append(f"{name} is of another kind.")
            elif stored.shape != own.shape and not (own.ndim == 0 and stored.shape == (1,)):
                self.shapes.append(f"{name} (got {list(stored.shape)}, expected {list(own.shape)})")
            elif stored.dtype != own.dtype:
                self.converted.add(_type(stored))

    def problems(self) -> list[str]:
        """Every kind of mismatch with its first cases, in words; what torch or a hook says where there is none."""
        if not self.error:
            return []
        kinds = {"missing": self.missing, "unexpected": self.unexpected}
        kinds |= {"of another shape": self.shapes, "of another kind": self.kinds}
        said = [f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names]
        return said or [self.error.removesuffix(".")]


def _load(module: nn.Module, state: dict[str, Any]) -> _Load:
    """Load weights strictly; whatever is raised is a mismatch, for load hooks are the user's code."""
    load = _Load()

    def strictly() -> None:
        try:
            module.load_state_dict(state)
        except RuntimeError as error:  # torch's list of mismatches
            load.error = str(error).splitlines()[-1].strip()

    with ExitStack() as hooks:
        for part in module.modules():
            handle = part.register_load_state_dict_pre_hook(load.look)  # type: ignore[no-untyped-call]
            hooks.callback(handle.remove)
        try:
            call_user_code(f"loading of weights into {type(module).__name__}", strictly, code=module)
        except InputError as error:
            load.error = error.message
    return load


def _unfit(path: Path, module: nn.Module, names: Sequence[str], attempts: dict[str, _Load]) -> InputError:
    """The mismatches of the likeliest, and what else was tried."""
    others = f" Neither do {', '.join(map(repr, names[1 : _SHOWN + 1]))}." if len(names) > 1 else ""
    which = f": its {names[0]!r}" if len(names) > 1 else ""
    problems = "; ".join(attempts[names[0]].problems())
    return InputError(
        f"{path}{which} doesn't fit {type(module).__name__}: {problems}.{others}",
        hint="Check that the factory builds the network, in the size, that the checkpoint was trained with.",
    )


def _notes(content: Content, chosen: Candidate, load: _Load) -> list[str]:
    used = {chosen.home.partition(".")[0]} if chosen.home else {name.partition(".")[0] for name in chosen.state}
    notes = source_notes(chosen.home, [key for key in content.keys if key not in used | content.tensors.keys()])
    if inner := chosen.prefix[len(chosen.home) :].lstrip("."):
        kinds = [WRAPPERS[part] for part in inner.split(".") if part in WRAPPERS]
        notes.append(f"The prefix {inner!r}{' of ' * bool(kinds)}{' and '.join(kinds)} was taken off the names.")
    notes += [f"{part!r} of {WRAPPERS[part]} was taken out of the names." for part in chosen.wrappers]
    if chosen.beside:
        notes.append(f"Not the network's, and not used: {_grouped(chosen)}.")
    if load.converted:
        notes.append(f"Weights stored as {', '.join(sorted(load.converted))} were converted to the network's type.")
    return notes


def _grouped(chosen: Candidate) -> str:
    """The tensors beside the weights, by the module that they are of."""
    inner = len(chosen.home) + bool(chosen.home)
    counts = Counter(path[inner:].partition(".")[0] for path in chosen.beside)
    return _first([f"{first!r} ({count} tensor{'s' * (count > 1)})" for first, count in counts.items()])


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _other_kind(stored: Tensor, expected: Tensor) -> str:
    """Description of a stored tensor that can't stand for the expected one; "" where it can."""
    if stored.is_meta:
        return "no values"
    if stored.layout != torch.strided:
        return str(stored.layout).removeprefix("torch.")
    return _type(stored) if expected.is_floating_point() and not stored.is_floating_point() else ""
