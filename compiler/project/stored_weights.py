"""What of a file's content may be a network's weights: pickled networks, and tensors by their dotted paths."""

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunec.passes.errors import InputError

#: Modules that wrappers put round a network, or round a part of it, and that show in the names of its weights.
WRAPPERS = {
    "module": "DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
#: Name of a weight-normalised tensor as the parametrisation has it; the older hook calls the two ``_g`` and ``_v``.
_WEIGHT_NORM = re.compile(r"(^|\.)parametrizations\.(\w+)\.original([01])$")
#: Parts of the names of modules that belong to the training, beside the network.
_OF_TRAINING = ("loss", "criterion")
#: torch's name of what a module keeps besides tensors; the value may be anything.
_EXTRA_STATE = "_extra_state"
#: Buffer of `torch.optim.swa_utils.AveragedModel`.
_AVERAGED_COUNT = "n_averaged"
_DEPTH, _CONTAINERS = 8, 1_000_000


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        keys: Keys of the outermost mapping.
        networks: Pickled networks by their paths, "" for the file itself.
        tensors: Tensors, and what modules keep besides, by their paths.
        homes: For each of them the path of the mapping that it stands in.
        metadata: Versions of modules, as ``state_dict()`` keeps them, by the modules' paths.
    """

    keys: tuple[str, ...]
    networks: dict[str, nn.Module]
    tensors: dict[str, Any]
    homes: dict[str, str]
    metadata: dict[str, Any]


def survey(content: object, path: Path) -> Content:
    """Find all networks and tensors in what was read from a file, to a depth of eight.

    Raises:
        InputError: Two tensors have one path, or there is too much of everything.
    """
    keys = tuple(map(str, content)) if isinstance(content, Mapping) else ()
    surveyed = Content(keys, {}, {}, {}, {})
    left: list[tuple[str, str, int, object]] = [("", "", 0, content)]
    seen = 0
    while left:
        where, home, depth, value = left.pop()
        seen += 1
        if seen > _CONTAINERS:
            raise InputError(f"{path} holds more than {_CONTAINERS:,} objects.", hint="Save the state_dict alone.")
        if isinstance(value, Tensor) or where.endswith(_EXTRA_STATE):
            if where in surveyed.tensors:
                raise InputError(f"{path} holds two tensors of the name {where!r}.")
            surveyed.tensors[where], surveyed.homes[where] = value, home
        elif isinstance(value, nn.Module):
            surveyed.networks.update({where: value} if any(True for _ in value.parameters()) else {})
        elif depth < _DEPTH:
            left += [(_join(where, key), where, depth + 1, inner) for key, inner in reversed(_inside(value))]
            metadata = getattr(value, "_metadata", None)
            if isinstance(metadata, Mapping):
                surveyed.metadata.update({_join(where, key): version for key, version in metadata.items()})
    return surveyed


def _inside(value: object) -> list[tuple[Any, Any]]:
    """The items of a mapping or a sequence that may hold tensors."""
    items = list(value.items()) if isinstance(value, Mapping) else []
    if isinstance(value, list | tuple):
        items = list(enumerate(value))
    return [
        (key, inner)
        for key, inner in items
        if isinstance(inner, Tensor | nn.Module | Mapping | list | tuple) or str(key).endswith(_EXTRA_STATE)
    ]


def _join(where: str, key: object) -> str:
    return ".".join(filter(None, (where, str(key))))


@dataclass(frozen=True)
class Candidate:
    """Tensors of a file that may be a network's weights.

    Attributes:
        prefix: What their paths in the file begin with, "" or with a dot at its end.
        home: Path of the mapping that they stand in.
        state: The tensors by the network's names.
        wrappers: Names of wrappers that were taken out of names behind the prefix.
        beside: Paths of tensors beside them that belong to something else.
    """

    prefix: str
    home: str
    state: "OrderedDict[str, Any]"
    wrappers: tuple[str, ...]
    beside: tuple[str, ...]

    @property
    def name(self) -> str:
        """The path, by which it is chosen; "." for the file itself."""
        return self.prefix.rstrip(".") or "."

    @property
    def is_averaged_model(self) -> bool:
        """Whether they are those of an `AveragedModel`, which keeps the number of averaged weights beside them."""
        owner = self.prefix.removesuffix("module.")
        return owner != self.prefix and f"{owner}{_AVERAGED_COUNT}" in self.beside


def candidates(content: Content, expected: Iterable[str]) -> list[Candidate]:
    """The parts of a file whose tensors have a network's names behind a common prefix, the likeliest first.

    Those that have at least half as many of the names as the likeliest are kept. Where load hooks translate all names,
    none fits; the mapping with the most tensors is taken then.
    """
    names = set(expected)
    votes = _votes(content.tensors, names) or _largest(content)
    most = max(votes.values(), default=0)
    prefixes = [prefix for prefix, count in votes.most_common() if 2 * count >= most]
    return [_candidate(content, prefix, names) for prefix in prefixes]


def _votes(paths: Iterable[str], names: set[str]) -> "Counter[str]":
    """Prefix -> number of paths that are one of the names behind it."""
    known = {_older(name) for name in names}
    deepest = 2 * max((name.count(".") + 1 for name in names), default=0)
    wrappers = _foreign_wrappers(names)
    votes: Counter[str] = Counter()
    for path in paths:
        parts = path.split(".")
        for start in range(max(0, len(parts) - deepest), len(parts)):
            if parts[start] not in wrappers and _older(_unwrapped(parts[start:], wrappers)) in known:
                votes[_prefix(parts[:start])] += 1
    return votes


def _largest(content: Content) -> "Counter[str]":
    """The mapping with the most tensors, with and without what all its names begin with."""
    sizes = Counter(content.homes.values())
    if not sizes:
        return Counter()
    home = sizes.most_common(1)[0][0]
    inside = [path for path, own in content.homes.items() if own == home]
    first = _prefix(inside[0].split(".")[: len(_parts(home)) + 1])
    own = _prefix(_parts(home))
    return Counter({own: 1, **({first: 1} if all(path.startswith(first) for path in inside) else {})})


def _candidate(content: Content, prefix: str, names: set[str]) -> Candidate:
    wrappers, firsts = _foreign_wrappers(names), {name.partition(".")[0] for name in names}
    state: OrderedDict[str, Any] = OrderedDict()
    used: list[str] = []
    for path, value in content.tensors.items():
        if not path.startswith(prefix):
            continue
        raw = path.removeprefix(prefix)
        name = _spelled(_unwrapped(raw.split("."), wrappers), names)
        if _is_beside(name, content.homes[path], prefix, firsts):
            continue
        state[raw if name in state else name] = value
        used.append(path)
    homes = {content.homes[path] for path in used}
    home = homes.pop() if len(homes) == 1 else prefix.rstrip(".")
    metadata = {
        _unwrapped(_parts(f"{where}.".removeprefix(prefix).rstrip(".")), wrappers): version
        for where, version in content.metadata.items()
        if f"{where}.".startswith(prefix)
    }
    if metadata:
        state._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]  # as torch keeps it
    within = {part for path in used for part in path.removeprefix(prefix).split(".") if part in wrappers}
    taken = set(used)
    beside = tuple(path for path, own in content.homes.items() if own == home and path not in taken)
    return Candidate(prefix, home, state, tuple(part for part in WRAPPERS if part in within), beside)


def _is_beside(name: str, home: str, prefix: str, firsts: set[str]) -> bool:
    """Whether a tensor is of a module that the network doesn't have, of a loss or in a mapping of its own."""
    first = name.partition(".")[0]
    if first in firsts:
        return False
    return f"{home}.".startswith(f"{prefix}{first}.") or any(part in first.lower() for part in _OF_TRAINING)


def _foreign_wrappers(names: Iterable[str]) -> set[str]:
    return WRAPPERS.keys() - {part for name in names for part in name.split(".")}


def _unwrapped(parts: list[str], wrappers: set[str]) -> str:
    return ".".join(part for part in parts if part not in wrappers)


def _spelled(name: str, names: set[str]) -> str:
    """A name, in the older spelling where the network has that: torch translates the other way only."""
    return older if name not in names and (older := _older(name)) in names else name


def _older(name: str) -> str:
    """The name of a weight-normalised tensor as the older hook has it; other names as they are."""
    return _WEIGHT_NORM.sub(lambda match: f"{match[1]}{match[2]}_{'gv'[int(match[3])]}", name)


def _parts(path: str) -> list[str]:
    return path.split(".") if path else []


def _prefix(parts: list[str]) -> str:
    return "".join(f"{part}." for part in parts)
