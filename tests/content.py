"""What a network or a program consists of, to tell whether another one is equal: hashable, without the weights' values.

Code is told with the names that it reads from around it. What can't be told, such as an object of a library, makes the
whole `Untold`.
"""

import sys
import sysconfig
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from prunec.passes.program import Program
from prunec.passes.tensors import fingerprint

_PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format, range, slice)
_OF_EVERY_CLASS = ("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__parameters__")
#: Code below these folders stays as it is while the tests run.
_LIBRARIES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib", "stdlib"))
_CONTAINERS: dict[type, Callable[[Any], Iterable[Any]]] = {
    tuple: iter, list: iter, torch.Size: iter, dict: dict.items, OrderedDict: OrderedDict.items,
}  # fmt: skip


class Untold(Exception):
    """It can't be told what something consists of."""


def of_network(*parts: Any) -> object:
    """What networks and their inputs consist of: structure, attributes, code, and tensors but for weights' values.

    Raises:
        Untold: They hold what can't be told.
    """
    return _Telling().told(parts)


def of_program(program: Program) -> object:
    """All that a program consists of, its tensors' values included.

    Raises:
        Untold: It holds what can't be told.
    """
    held: dict[str, Tensor] = {name: tensor.detach() for name, tensor in program.tensors().items()}
    held |= {f"mask of {name}": mask for name, mask in program.masks.items()}
    fields = {name: value for name, value in vars(program).items() if name not in ("module", "masks")}
    first: dict[int, str] = {}
    ties = tuple(first.setdefault(id(tensor), name) for name, tensor in sorted(program.tensors().items()))
    trained = tuple(name for name, tensor in sorted(program.tensors().items()) if tensor.requires_grad)
    inputs = of_network(fields.pop("example_args"), fields.pop("example_kwargs"))
    return inputs, repr(sorted(fields.items())), ties, trained, fingerprint(held), _of_graph(program.graph)


def _of_graph(graph: Graph) -> object:
    if any(node.op == "call_module" for node in graph.nodes):
        raise Untold("a module within a graph")
    nodes = tuple(
        (node.op, node.name, node.target, repr(node.args), repr(node.kwargs), repr(sorted(node.meta.items(), key=str)))
        for node in graph.nodes
    )
    codegen: Any = graph._codegen
    return nodes, repr(vars(codegen))


class _Telling:
    """One walk through all that something refers to."""

    def __init__(self) -> None:
        #: Objects by what they are, in the order of the walk: also what keeps their identities from being used again.
        self._seen: dict[int, tuple[int, object]] = {}
        #: Identities of parameters and buffers, whose values are left out.
        self._state = set[int]()

    def told(self, value: Any) -> object:
        if isinstance(value, _PLAIN):
            return type(value), value if value == value else "nan"
        if id(value) in self._seen:
            return "seen", self._seen[id(value)][0]
        self._seen[id(value)] = len(self._seen), value
        kind = type(value)
        if (entries := _CONTAINERS.get(kind)) is not None:
            return kind, tuple(self.told(entry) for entry in entries(value))
        if kind in (set, frozenset):
            return kind, tuple(self.told(entry) for entry in sorted(value, key=repr))
        if isinstance(value, Tensor):
            return self._tensor(value)
        return self._referring(value)

    def _referring(self, value: Any) -> object:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return "method", self.told(value.__func__), self.told(value.__self__)
        if isinstance(value, partial):
            return partial, self.told(value.func), self.told(value.args), self.told(value.keywords)
        if isinstance(value, types.ModuleType | types.BuiltinFunctionType | torch._ops.OpOverload):
            return value
        if isinstance(value, nn.Module) and not isinstance(value, GraphModule | torch.jit.ScriptModule):
            state = (*value._parameters.values(), *value._buffers.values())
            self._state |= {id(tensor) for tensor in state if tensor is not None}
            return self.told(type(value)), self.told(type(value).forward), self.told(vars(value))
        raise Untold(type(value).__name__)

    def _tensor(self, value: Tensor) -> object:
        if type(value) not in (Tensor, nn.Parameter, nn.Buffer) or value.layout != torch.strided or value.is_meta:
            raise Untold(type(value).__name__)
        if not bool(torch.isfinite(value.detach()).all()):
            raise Untold("numbers that aren't finite")
        values = "" if id(value) in self._state else fingerprint({"": value})
        return type(value), value.dtype, tuple(value.shape), value.stride(), value.requires_grad, value.device, values

    def _class(self, kind: type) -> object:
        """A network's class by its code, since tests define it anew; others themselves, since outputs are of them."""
        if _is_library(kind.__module__) or not issubclass(kind, nn.Module):
            return kind
        members = tuple(
            (name, self._member(member)) for name, member in vars(kind).items() if name not in _OF_EVERY_CLASS
        )
        return kind.__qualname__, members, tuple(self.told(base) for base in kind.__bases__)

    def _member(self, member: Any) -> object:
        if isinstance(member, staticmethod | classmethod):
            return type(member), self.told(member.__func__)
        if isinstance(member, property):
            return property, self.told(member.fget)
        return self.told(member)

    def _function(self, function: types.FunctionType) -> object:
        if _is_library(function.__module__):
            return function
        names = sorted(set(_names(function.__code__)) & function.__globals__.keys())
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        return (
            function.__code__,
            tuple((name, self.told(function.__globals__[name])) for name in names),
            tuple(self.told(content) for content in cells),
            self.told(function.__defaults__),
            self.told(function.__kwdefaults__),
        )


def _names(code: types.CodeType) -> Iterable[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_library(module: str | None) -> bool:
    """Whether a module's code stays as it is: Python's own and what is installed, prunec excepted."""
    file = getattr(sys.modules.get(module or ""), "__file__", None)
    return module == "builtins" or (file is not None and str(Path(file).resolve()).startswith(_LIBRARIES))
