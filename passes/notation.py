"""The text form of named things with options, pipelines above all, as a tree of names and values.

Grammar::

    pipeline := item*                                items are separated by blanks
    item     := NAME options? | "repeat" options "(" pipeline ")"
    options  := "{" [KEY "=" value ("," KEY "=" value)*] "}"
    value    := BARE | QUOTED | "[" [value ("," value)*] "]" | "{" [key "=" value ("," key "=" value)*] "}"

A quoted value is a JSON string. A bare one holds none of blanks, quotes and ``,={}[]()``.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from prunec.passes.errors import UsageError

_TOKEN = re.compile(r'\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<bare>[^\s,={}\[\]()"]+)|(?P<mark>[,={}\[\]()]))', re.S)
_BARE = re.compile(r'[^\s,={}\[\]()"]+')
REPEAT = "repeat"
#: Characters of a text.
_MAX_CHARACTERS = 100_000
#: Depth of brackets that a text may have; it is beyond any use, and within Python's stack.
_MAX_DEPTH = 64


@dataclass(frozen=True)
class Item:
    """One word of a pipeline as it was written; `body` holds the items in the brackets of a repeat."""

    name: str
    options: dict[str, object] = field(default_factory=dict)
    body: "tuple[Item, ...] | None" = None


def parse_items(text: str, what: str = "pipeline") -> tuple[Item, ...]:
    """The items of a text, which messages call ``what``; values are strings, lists and dictionaries of these.

    Raises:
        UsageError: The text doesn't follow the grammar; the message shows where.
    """
    reader = _Reader(text, what)
    items = reader.items()
    if reader.peek() is not None:
        raise reader.error("expected the name of a step")
    return items


def is_name(text: str) -> bool:
    """Whether the text can name an item as it stands."""
    return _BARE.fullmatch(text) is not None


def print_item(name: str, options: Mapping[str, object]) -> str:
    """``name{key=value,...}``, without braces where there are no options.

    Raises:
        UsageError: The name can't be read in a text.
    """
    if not is_name(name):
        raise UsageError(f"The name {name!r} has no text form.", hint="Leave out blanks, quotes and ,={}[]().")
    return f"{name}{_print_options(options)}" if options else name


def _print_options(options: Mapping[str, object]) -> str:
    return "{" + ",".join(f"{_print_value(key)}={_print_value(value)}" for key, value in options.items()) + "}"


def _print_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if is_name(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return _print_options(value)
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_print_value, value)) + "]"
    return repr(value)


class _Reader:
    """A recursive-descent reader over the tokens of one text."""

    def __init__(self, text: str, what: str) -> None:
        self.text, self.what = text, what
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, position
        self.position = self.depth = 0
        if len(text) > _MAX_CHARACTERS:
            raise self.error(f"it has {len(text)} characters, and at most {_MAX_CHARACTERS} are read", at=0)
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error("a quote is not closed", at=position)
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()

    def error(self, problem: str, at: int | None = None) -> UsageError:
        if at is None:
            rest = self.tokens[self.position :]
            at = rest[0][2] if rest else len(self.text)
        where = f"before {self.text[at : at + 20]!r}" if at < len(self.text) else "the end"
        return UsageError(
            f"The {self.what} can't be read: {problem} at position {at}, {where}.",
            hint='Expected name{option=value,...} name ...; quote values with blanks or ,={}: schedule="step:0=0.1".',
        )

    def peek(self) -> str | None:
        """The next mark, or "" before a value, or None at the end."""
        if self.position == len(self.tokens):
            return None
        kind, text, _ = self.tokens[self.position]
        return text if kind == "mark" else ""

    def take(self, mark: str) -> bool:
        """Consume the next token if it is this mark, and tell whether it was."""
        is_next = self.peek() == mark
        self.position += is_next
        return is_next

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            raise self.error(f"expected {mark!r}")

    def scalar(self, what: str) -> str:
        if self.peek() != "":
            raise self.error(f"expected {what}")
        kind, text, at = self.tokens[self.position]
        self.position += 1
        if kind == "bare":
            return text
        try:
            return str(json.loads(text, strict=False))
        except ValueError as error:
            raise self.error(f"the quoted value {text[:40]} is not valid ({error})", at=at) from error

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Read one level of brackets further in."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.error(f"more than {_MAX_DEPTH} brackets within each other")
        yield
        self.depth -= 1

    def items(self) -> tuple[Item, ...]:
        items = []
        while self.peek() == "":
            name = self.scalar("the name of a step")
            options = self.options() if self.take("{") else {}
            body = None
            if name == REPEAT:
                self.expect("(")
                with self.deeper():
                    body = self.items()
                self.expect(")")
            items.append(Item(name, options, body))
        return tuple(items)

    def options(self) -> dict[str, object]:
        """Options up to the closing brace; the opening one is behind."""
        options: dict[str, object] = {}
        while not self.take("}"):
            if options:
                self.expect(",")
            key = self.scalar("the name of an option")
            if key in options:
                raise self.error(f"{key!r} is given twice")
            self.expect("=")
            options[key] = self.value()
        return options

    def value(self) -> object:
        with self.deeper():
            if self.take("{"):
                return self.options()
            return self.elements() if self.take("[") else self.scalar("a value")

    def elements(self) -> list[object]:
        elements: list[object] = []
        while not self.take("]"):
            if elements:
                self.expect(",")
            elements.append(self.value())
        return elements
