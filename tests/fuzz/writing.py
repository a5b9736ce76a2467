"""Random networks as source code: numbers choose what is written, so that fewer and smaller numbers mean less code."""

import linecache
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

T = TypeVar("T")
_MODULE = "tests_fuzz_network"


@dataclass(frozen=True)
class Step:
    """One step of a network: the number that chooses its kind, and those that choose its details."""

    kind: int = 0
    details: tuple[int, ...] = ()


@dataclass(frozen=True)
class Value:
    """A tensor of the network's forward, by its name there.

    Attributes:
        name: Name of the variable.
        shape: Shape of one sample: (channels, height, width), (tokens, channels) or (features,).
    """

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def channels(self) -> int:
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]


@dataclass
class Writer:
    """The network as far as it is written.

    Attributes:
        details: numbers that the step at hand hasn't used yet.
        layers: statements of ``__init__``.
        body: statements of ``forward``.
        passed: the value after each step, the input first.
    """

    details: list[int] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    passed: list[Value] = field(default_factory=list)
    variables: int = 0

    def pick(self, *options: T) -> T:
        """One of the options by the next number; the first, which is the simplest, once there is none left."""
        return options[self.details.pop(0) % len(options)] if self.details else options[0]

    def layer(self, name: str, text: str) -> str:
        """A member of the network; returns how forward names it."""
        own = f"{name}{len(self.layers)}"
        self.layers.append(f"self.{own} = {text}")
        return f"self.{own}"

    def parameter(self, *shape: int) -> str:
        return self.layer("weight", f"nn.Parameter(torch.zeros({', '.join(map(str, shape))}))")

    def buffer(self, *shape: int) -> str:
        name = f"buffer{len(self.layers)}"
        self.layers.append(f"self.register_buffer({name!r}, torch.zeros({', '.join(map(str, shape))}))")
        return f"self.{name}"

    def let(self, text: str, *shape: int) -> Value:
        """A new variable of forward."""
        self.variables += 1
        value = Value(f"v{self.variables}", shape)
        self.body.append(f"{value} = {text}")
        return value

    def several(self, text: str, *shapes: tuple[int, ...]) -> list[Value]:
        """A new variable for each of several values."""
        values = [Value(f"v{self.variables + 1 + i}", shape) for i, shape in enumerate(shapes)]
        self.variables += len(values)
        self.body.append(f"{', '.join(map(str, values))} = {text}")
        return values

    def do(self, text: str) -> None:
        """A statement of forward."""
        self.body.append(text)

    def source(self, image: tuple[int, int, int], result: str) -> str:
        """The module's source, which needs nothing but torch."""
        layers, body = ("".join(f"        {line}\n" for line in lines) for lines in (self.layers, self.body))
        return (
            "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\n"
            "class Network(nn.Module):\n"
            f"    image = {image}\n\n"
            f"    def __init__(self):\n        super().__init__()\n{layers}\n"
            f"    def forward(self, x):\n{body}        return {result}\n"
        )


#: Writes one step after a value and returns its result.
Written = Callable[[Writer, Value], Value]


def build(source: str) -> nn.Module:
    """The network of a source. Its code can be inspected, and tracebacks show its lines."""
    module = types.ModuleType(_MODULE)
    module.__file__ = f"<{_MODULE}>"
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)
    sys.modules[_MODULE] = module
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    network: nn.Module = module.Network()
    return network.eval()
