"""Which of several weights in a file is meant: the one that is asked for, else the one that isn't an average."""

import re
from collections.abc import Sequence
from pathlib import Path

from prunec.passes.errors import InputError

#: Words in the names of weights that are averages over the training.
_AVERAGED = {"ema", "swa", "avg", "averaged", "shadow"}
_SHOWN = 8


def is_averaged(name: str) -> bool:
    """Whether weights are by their name an average over the training, such as an exponential moving one."""
    return bool(_words(name) & _AVERAGED)


def asked_for(names: Sequence[str], asked: str) -> list[str]:
    """The names that are meant: the very name, else those with it as a part, else those with all of its words.

    All of them where nothing is asked for.
    """
    if not asked:
        return list(names)
    return (
        [name for name in names if name == asked]
        or [name for name in names if asked in name.split(".")]
        or [name for name in names if _words(asked) and _words(asked) <= _words(name)]
    )


def check_found(names: Sequence[str], asked: str, path: Path, known: Sequence[str]) -> None:
    """Refuse a name that no weights of a file have.

    Raises:
        InputError: ``names``, which fit what was asked for, are none.
    """
    if not names and asked:
        raise InputError(f"{path} holds no weights of the name {asked!r}.", hint=f"It holds {_listed(known)}.")


def choose(names: Sequence[str], path: Path) -> str:
    """The one of several weights that fit: those of the training itself before averages of it.

    Raises:
        InputError: There are several.
    """
    pool = [name for name in names if not is_averaged(name)] or list(names)
    if len(pool) > 1:
        raise InputError(
            f"{path} holds {len(pool)} weights of such a network: {_listed(pool)}.",
            hint=f"Say which: --weights {pool[0]}, or weights under [model] in prunec.toml.",
        )
    return pool[0]


def source_notes(home: str, unused: Sequence[str]) -> list[str]:
    """What is to be said of where weights stand in a file, and of the keys beside them."""
    left = f"not used: {', '.join(unused[:5])}" if unused else ""
    if home:
        return [f"The weights are what the file holds under {home!r}{'; ' * bool(left)}{left}."]
    return [f"The file holds more than the weights; {left}."] if left else []


def choice_notes(chosen: str, names: Sequence[str], counts_averaged: bool = False) -> list[str]:
    """What is to be said of averages: that they were taken, or that there are some.

    Args:
        chosen: Name of the weights that were taken.
        names: Names of all that could have been.
        counts_averaged: Whether those taken are of torch's AveragedModel, which says how many it averaged.
    """
    if counts_averaged:
        return ["The weights are an average over the training (AveragedModel)."]
    if is_averaged(chosen):
        return [f"The weights {chosen!r} are, by that name, an average over the training (EMA)."]
    averaged = [name for name in names if is_averaged(name)]
    return [f"The file has averaged weights, too: --weights {name} takes them." for name in averaged[:1]]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _words(name: str) -> set[str]:
    return set(re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())) - {""}
