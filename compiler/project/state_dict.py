"""Weights by name: out of the wrappers that training scripts put around them, into a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.errors import InputError

#: Keys under which training scripts keep the weights, in the order in which they are looked for.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
#: Prefixes that wrappers put before every name.
_PREFIXES = {"module.": "DistributedDataParallel", "_orig_mod.": "torch.compile"}
_SHOWN = 3


def unwrap(content: object) -> tuple[object, tuple[str, ...]]:
    """Weights, or a network, out of ``{"state_dict": ...}`` and the like, with a note on what was left behind."""
    notes = []
    if isinstance(content, Mapping):
        key = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping | nn.Module)), None)
        if key is not None:
            others = [str(name) for name in content if name != key]
            left = f"; not used: {', '.join(others[:5])}" if others else ""
            notes.append(f"The weights are what the file holds under {key!r}{left}.")
            content = content[key]
    if isinstance(content, nn.DataParallel):
        notes.append("The network was taken out of its DataParallel wrapper.")
        content = content.module
    return content, tuple(notes)


def load_state(module: nn.Module, content: object, path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Load the content of a file, tensors by name, into a network, in place.

    Returns:
        The network, and notes on what was done to the weights.

    Raises:
        InputError: The content is no state_dict, or doesn't fit; the message names the first mismatches.
    """
    expected: dict[str, Any] = dict(module.state_dict())
    state, notes = _without_prefixes(_checked(content, path), expected)
    if problems := _mismatches(expected, state):
        raise InputError(
            f"{path} doesn't fit {type(module).__name__}: {'; '.join(problems)}.",
            hint="Check that the factory builds the network, in the size, that the checkpoint was trained with.",
        )
    converted = sorted({str(v.dtype).removeprefix("torch.") for n, v in state.items() if _converts(v, expected[n])})
    if converted:
        notes.append(f"Weights stored as {', '.join(converted)} were converted to the network's type.")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # from hooks of its modules
        said = str(error).splitlines()[-1].strip()
        raise InputError(f"{path} doesn't fit {type(module).__name__}: {said}") from error
    return module, tuple(notes)


def _checked(content: object, path: Path) -> dict[str, Any]:
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        names = ", ".join(map(repr, list(content)[:_SHOWN])) if isinstance(content, Mapping) else ""
        inside = f" with {names}" if names else " that is empty" if content == {} else ""
        raise InputError(
            f"{path} holds no state_dict: expected tensors by name, got {type(content).__name__}{inside}.",
            hint="Save it with torch.save(model.state_dict(), ...).",
        )
    return {str(name): value for name, value in content.items()}


def _without_prefixes(state: dict[str, Any], expected: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The names without the prefixes that wrappers put before all of them, with a note on each."""
    for prefix, wrapper in _PREFIXES.items():
        if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in expected):
            inner, notes = _without_prefixes({n.removeprefix(prefix): value for n, value in state.items()}, expected)
            return inner, [f"The prefix {prefix!r} of {wrapper} was taken off every name.", *notes]
    return state, []


def _mismatches(expected: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """Every kind of mismatch with its first cases, in words."""
    shapes = [
        f"{name} (got {_shape(state[name])}, expected {_shape(value)})"
        for name, value in expected.items()
        if name in state and _shape(state[name]) != _shape(value)
    ]
    kinds = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": shapes,
        "of another kind": [
            f"{name} (got {kind}, expected {_type(value)})"
            for name, value in expected.items()
            if (kind := _other_kind(state.get(name), value))
        ],
    }
    return [f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds.items() if names]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _shape(value: object) -> list[int] | None:
    return list(value.shape) if isinstance(value, Tensor) else None


def _type(value: object) -> str:
    return str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__


def _other_kind(stored: object, expected: object) -> str:
    """Description of a stored tensor that can't stand for the expected one; "" where it can."""
    if not isinstance(stored, Tensor) or not isinstance(expected, Tensor):
        return ""
    if stored.is_meta:
        return "no values"
    if stored.layout != torch.strided:
        return str(stored.layout).removeprefix("torch.")
    return _type(stored) if expected.is_floating_point() and not stored.is_floating_point() else ""


def _converts(stored: object, expected: object) -> bool:
    return isinstance(stored, Tensor) and isinstance(expected, Tensor) and stored.dtype != expected.dtype
