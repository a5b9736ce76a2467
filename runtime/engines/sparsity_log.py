"""What TensorRT's builder says of sparse kernels in its log.

Up to TensorRT 8.6 it prints ``(Sparsity) Layers eligible for sparse math: a, b`` and ``(Sparsity) TRT inference plan
picked sparse implementation for layers: a``; from 10 on ``(Sparsity) Found 2 layer(s) eligible to use sparse tactics:
a, b`` and ``(Sparsity) Chose 1 layer(s) using sparse tactics: a``. It does so once per pass over the kernels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARK = "(Sparsity)"
_FOUND = (
    re.compile(r"Found \d+ layer\(s\) eligible to use sparse tactics:?\s*(.*)", re.DOTALL),
    re.compile(r"Layers eligible for sparse math:\s*(.*)", re.DOTALL),
)
_CHOSEN = (
    re.compile(r"Chose \d+ layer\(s\) using sparse tactics:?\s*(.*)", re.DOTALL),
    re.compile(r"TRT inference plan picked sparse implementation for layers:\s*(.*)", re.DOTALL),
)


@dataclass(frozen=True)
class BuilderSparsity:
    """Layers of an engine, as the builder names them; a fused one is named after all its parts.

    Attributes:
        found: that sparse kernels were tried for.
        chosen: that run sparse kernels.
    """

    found: tuple[str, ...]
    chosen: tuple[str, ...]

    def has_found(self, node: str) -> bool:
        """Whether the builder tried sparse kernels for an ONNX node."""
        return any(node in parts(layer) for layer in self.found)

    def has_chosen(self, node: str) -> bool:
        """Whether the builder chose a sparse kernel for an ONNX node."""
        return any(node in parts(layer) for layer in self.chosen)


def parse_sparsity(messages: Iterable[str]) -> BuilderSparsity | None:
    """The last word of a builder on sparse kernels; None where it says nothing of them.

    Args:
        messages: of its log, in their order.
    """
    found: tuple[str, ...] | None = None
    chosen: tuple[str, ...] = ()
    for message in messages:
        if MARK not in message:
            continue
        if (names := _names(message, _FOUND)) is not None:
            found, chosen = names, ()
        elif (names := _names(message, _CHOSEN)) is not None:
            chosen = names
    return None if found is None else BuilderSparsity(found, chosen)


def parts(layer: str) -> set[str]:
    """ONNX nodes that an engine's layer is named after.

    >>> sorted(parts("node_conv + node_relu || node_add"))
    ['node_add', 'node_conv', 'node_relu']
    """
    return set(re.split(r"\s*(?:\+|\|\||\.\.\.|[{}\[\]()])\s*", layer)) - {"", "ForeignNode"}


def _names(message: str, patterns: Iterable[re.Pattern[str]]) -> tuple[str, ...] | None:
    for pattern in patterns:
        if (match := pattern.search(message)) is not None:
            return tuple(name.strip() for name in match[1].split(", ") if name.strip())
    return None
