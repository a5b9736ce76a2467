"""The word of TensorRT's builder on sparse kernels in its log.

Up to TensorRT 8.6 it prints ``(Sparsity) Layers eligible for sparse math: a, b`` and ``(Sparsity) TRT inference plan
picked sparse implementation for layers: a``; from 10 on ``(Sparsity) Found 2 layer(s) eligible to use sparse tactics:
a, b`` and ``(Sparsity) Chose 1 layer(s) using sparse tactics: a``. It prints them once per pass over the kernels.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARK = "(Sparsity)"
_TRIED = re.compile(
    r"(?:Found \d+ layer\(s\) eligible to use sparse tactics:?|Layers eligible for sparse math:)(.*)", re.DOTALL
)
_CHOSEN = re.compile(
    r"(?:Chose \d+ layer\(s\) using sparse tactics:?|TRT inference plan picked sparse implementation for layers:)(.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class BuilderSparsity:
    """Layers of an engine by the builder's names for them; a fused layer is named after all its parts.

    Attributes:
        tried: Layers for which sparse kernels were tried.
        chosen: Layers that run sparse kernels.
    """

    tried: tuple[str, ...]
    chosen: tuple[str, ...]

    def has_tried(self, node: str) -> bool:
        """Whether the builder tried sparse kernels for an ONNX node."""
        return any(node in parts(layer) for layer in self.tried)

    def has_chosen(self, node: str) -> bool:
        """Whether the builder chose a sparse kernel for an ONNX node."""
        return any(node in parts(layer) for layer in self.chosen)


def parse_sparsity(messages: Iterable[str]) -> BuilderSparsity | None:
    """The last word of a builder's log on sparse kernels; None where it says nothing about them."""
    tried: tuple[str, ...] | None = None
    chosen: tuple[str, ...] = ()
    for message in messages:
        if MARK not in message:
            continue
        if match := _TRIED.search(message):
            tried, chosen = _names(match[1]), ()
        elif match := _CHOSEN.search(message):
            chosen = _names(match[1])
    return None if tried is None else BuilderSparsity(tried, chosen)


def parts(layer: str) -> set[str]:
    """ONNX nodes that an engine's layer is named after.

    >>> sorted(parts("node_conv + node_relu || node_add"))
    ['node_add', 'node_conv', 'node_relu']
    """
    return set(re.split(r"\s*(?:\+|\|\||\.\.\.|[{}\[\]()])\s*", layer)) - {"", "ForeignNode"}


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(", ") if name.strip())
