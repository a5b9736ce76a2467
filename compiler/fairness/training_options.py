"""Options of a training as a run card holds them: given, the same as in a named setup, or not known."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, model_validator

from prunec.compiler.fairness.option_places import STEP_PLACES, TRAINING_OPTIONS

#: Stands for an option of which it is known that nothing it belongs to was there.
ABSENT = "not there"


class CardPart(BaseModel):
    """A part of a run card."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AsIn(CardPart):
    """A value that isn't known, but is the same in all runs of a named setup, such as one table of a paper."""

    setup: str

    def __str__(self) -> str:
        return f"as in {self.setup}"


class Changing(CardPart):
    """A value that changes from one training to the next: pairs (epoch from which on it holds, value)."""

    changes: tuple[tuple[float, JsonValue], ...]

    def __str__(self) -> str:
        return ", ".join(f"{in_words(value)} from epoch {epoch:g}" for epoch, value in self.changes)


#: An option's value on a card.
CardValue: TypeAlias = AsIn | Changing | JsonValue
_Number = float | Literal["none"] | AsIn | Changing | None
_Word = str | AsIn | Changing | None
_Flag = StrictBool | AsIn | Changing | None


class TrainingOptions(CardPart):
    """Options of a training besides its learning rates; "none" says that there was none of it.

    Beside these, a card may hold any option that `Recover` has, under its name there, those of training hooks as
    ``hooks.0``, ``hooks.0.OPTION``, and those of other steps as ``STEP.OPTION``.

    Attributes:
        is_complete: Whether what isn't given is known not to have been there, but for options that every training has.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[CardValue, Field(union_mode="left_to_right")]] = Field(init=False)

    optimizer: _Word = None
    momentum: _Number = None
    nesterov: _Flag = None
    weight_decay: _Number = None
    batch_size: int | AsIn | Changing | None = None
    loss: _Word = None
    augmentation: tuple[str, ...] | AsIn | Changing | None = None
    ema: _Number = None
    clip_norm: _Number = None
    precision: _Word = None
    is_complete: StrictBool = False

    @model_validator(mode="after")
    def _check_names(self) -> "TrainingOptions":
        for name in self.__pydantic_extra__:
            is_known = "." in name or name in TRAINING_OPTIONS or name in STEP_PLACES
            if not is_known and not self.is_complete:  # a report's options are what was followed, whatever they are
                raise ValueError(f"no training has an option {name!r}")
        return self

    @property
    def given(self) -> dict[str, CardValue]:
        """The options that are known, or said to be those of a setup, by name; None for one that can't be told."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name != "is_complete"}
        return {name: value for name, value in named.items() if value is not None} | self.__pydantic_extra__


def in_setup(options: object, setup: str) -> object:
    """Options as a document has them, in which those that it doesn't give are the same as in a setup."""
    if not isinstance(options, Mapping):
        return options
    missing = [name for name in TRAINING_OPTIONS if options.get(name) is None]
    return {**options, **{name: {"setup": setup} for name in missing}}


def is_same(a: CardValue, b: CardValue) -> bool | None:
    """Whether two values are equal; None where that isn't known."""
    if a is None or b is None:
        return None
    if isinstance(a, AsIn) or isinstance(b, AsIn):
        return True if a == b else None
    return bool(_plain(a) == _plain(b))


def in_words(value: Any) -> str:
    """A value for a reader."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, tuple | list):
        return ", ".join(map(in_words, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_words(item)}" for key, item in value.items()) or "none"
    return str(value)


def _plain(value: Any) -> Any:
    """A value in which spellings of one thing are equal: case of words, lists and tuples, 0 and "none".

    The case of ``module:name`` counts, as it does in Python.
    """
    if isinstance(value, Changing):
        return [[epoch, _plain(item)] for epoch, item in value.changes]
    if isinstance(value, str):
        return 0 if value == "none" else value if ":" in value else value.casefold()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value] or 0
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()} or 0
    return 0 if value is False or value is None else value
