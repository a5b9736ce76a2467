"""Attributes of modules that hold sizes: whole numbers, alone or within tuples, lists and dicts."""

import inspect
from collections.abc import Mapping
from copy import copy
from typing import Any

from torch import Tensor, nn

#: New values of attributes: {(path of the module, attribute): value}.
Attributes = Mapping[tuple[str, str], Any]
#: Attributes that a module has for being one.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def set_attributes(module: nn.Module, attributes: Attributes) -> None:
    """Set attributes of modules within a module, in place; a tensor goes to the device of the one before."""
    for (path, name), value in attributes.items():
        part = module.get_submodule(path)
        before = getattr(part, name, None)
        if isinstance(value, Tensor) and isinstance(before, Tensor) and not before.is_meta:
            setattr(part, name, value.to(before.device))
        else:
            setattr(part, name, value)


def size_attributes(part: nn.Module) -> dict[str, Any]:
    """Attributes of a module itself and of its class that are whole numbers, or tuples, lists or dicts.

    Properties aren't asked: they are computed from such attributes. Those of every module hold no sizes.
    """
    of_class = {
        name: inspect.getattr_static(type(part), name) for name in dir(type(part)) if not hasattr(nn.Module, name)
    }
    return {
        name: value
        for name, value in {**of_class, **vars(part)}.items()
        if _is_size(value) or (isinstance(value, tuple | list | dict) and name not in _OF_EVERY_MODULE)
    }


def _is_size(value: object) -> bool:
    return type(value) is int and value > 1


def replaced(value: Any, pairs: Mapping[tuple[int, int], None]) -> list[Any]:
    """New values of an attribute, each once."""
    if _is_size(value):
        return list(dict.fromkeys(new for old, new in pairs if old == value))
    first: dict[int, int] = {}
    for old, new in pairs:
        first.setdefault(old, new)
    changed = _exchanged(value, first)
    return [] if changed is value else [changed]


def _exchanged(value: Any, sizes: Mapping[int, int], within: frozenset[int] = frozenset()) -> Any:
    """A value with sizes exchanged wherever they stand in it, but for the keys of dicts; itself if it has none.

    ``within`` are the identities of the values that it stands in: one of them again is left as it is.
    """
    if _is_size(value):
        return sizes.get(value, value)
    if not isinstance(value, tuple | list | dict) or id(value) in within:
        return value
    old = list(value.values() if isinstance(value, dict) else value)
    new = [_exchanged(item, sizes, within | {id(value)}) for item in old]
    if all(a is b for a, b in zip(old, new, strict=True)):
        return value
    if isinstance(value, dict):
        changed = copy(value)
        changed.update(zip(value, new, strict=True))
        return changed
    return getattr(type(value), "_make", type(value))(new)  # named tuples take their fields one by one
