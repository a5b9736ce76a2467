"""What a network or a program consists of, to tell whether another one is equal: hashable, without the weights' values.

Code is told with what it reads from around it. What can't be told, such as an object of a library or an own module that
code reads from, makes the whole `Untold`.
"""

import dis
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from sys import modules
from sysconfig import get_path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from prunec.passes.program import Program
from prunec.passes.tensors import fingerprint, named_tensors

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.memory_format, range)
_OF_EVERY_CLASS = ("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__parameters__")
#: Code below these folders stays as it is while the tests run.
_LIBRARIES = tuple(str(Path(get_path(name)).resolve()) for name in ("purelib", "platlib", "stdlib"))
_CONTAINERS: dict[type, Callable[[Any], Iterable[Any]]] = {
    tuple: iter, list: iter, torch.Size: iter, dict: dict.items, OrderedDict: OrderedDict.items,
}  # fmt: skip
#: By these a function reads what its code doesn't name.
_REACHING = {"globals", "eval", "exec", "import_module", "__import__", "modules"}


class Untold(Exception):
    """It can't be told what something consists of."""


def of_network(module: nn.Module, *others: Any) -> object:
    """What a network consists of, and what else goes with it: structure, attributes, code, and all values of tensors
    but those of its own parameters and buffers.

    Raises:
        Untold: They hold what can't be told.
    """
    return _Telling(named_tensors(module).values()).told((module, others))


def of_program(program: Program) -> object:
    """All that a program consists of, its tensors' values included.

    Raises:
        Untold: It holds what can't be told.
    """
    tensors = program.tensors()
    held: dict[str, Tensor] = {name: tensor.detach() for name, tensor in tensors.items()}
    held |= {f"mask of {name}": mask for name, mask in program.masks.items()}
    fields = {name: value for name, value in vars(program).items() if name not in ("module", "masks")}
    first: dict[int, str] = {}
    memory = tuple(
        (name, type(tensor), tensor.requires_grad, tensor.stride(), tensor.storage_offset(),
         first.setdefault(tensor.untyped_storage().data_ptr(), name), first.setdefault(id(tensor), name))
        for name, tensor in tensors.items()
    )  # fmt: skip
    inputs = _Telling(()).told((fields.pop("example_args"), fields.pop("example_kwargs")))
    told = repr(sorted(fields.items())), tuple(program.masks), fingerprint(held)
    return inputs, told, memory, _of_graph(program.graph)


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

    def __init__(self, state: Iterable[Tensor]) -> None:
        #: Objects by what they are, in the order of the walk: also what keeps their identities from being used again.
        self._seen: dict[int, tuple[int, object]] = {}
        #: Identities of the parameters and buffers whose values are left out.
        self._state = {id(tensor) for tensor in state}

    def told(self, value: Any) -> object:
        kind = type(value)
        if kind in _PLAIN:
            return kind, repr(value) if kind in (float, complex) else value
        if kind is slice:
            return slice, self.told((value.start, value.stop, value.step))
        if id(value) in self._state:  # reached by another way than its module: torch takes its values for constants
            raise Untold("a parameter or buffer in an attribute")
        if id(value) in self._seen:
            return "seen", self._seen[id(value)][0]
        self._seen[id(value)] = len(self._seen), value
        if (entries := _CONTAINERS.get(kind)) is not None:
            return kind, tuple(self.told(entry) for entry in entries(value))
        if kind in (set, frozenset):
            return kind, tuple(self.told(entry) for entry in sorted(value, key=repr))
        if isinstance(value, Tensor):
            return _described(value), fingerprint({"": value})
        return self._referring(value)

    def _referring(self, value: Any) -> object:
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return "method", self.told(value.__func__), self.told(value.__self__)
        if type(value) is partial:
            return partial, self.told(value.func), self.told(value.args), self.told(value.keywords)
        if isinstance(value, types.BuiltinFunctionType) and not isinstance(value.__self__, types.ModuleType | None):
            raise Untold("a method of an object")
        if isinstance(value, types.BuiltinFunctionType | torch._ops.OpOverload):
            return value
        if isinstance(value, types.ModuleType) and _is_library(getattr(value, "__file__", None)):
            return value
        if isinstance(value, nn.Module) and not isinstance(value, GraphModule | torch.jit.ScriptModule):
            return self._module(value)
        raise Untold(type(value).__name__)

    def _module(self, module: nn.Module) -> object:
        held = [*module._parameters.items(), *module._buffers.items()]
        tensors = tuple((name, self._held(tensor)) for name, tensor in held)
        attributes = {name: value for name, value in vars(module).items() if name not in ("_parameters", "_buffers")}
        return self.told(type(module)), self.told(type(module).forward), tensors, self.told(attributes)

    def _held(self, tensor: Tensor | None) -> object:
        """What a module has as a parameter or buffer: without its values if it is the network's, which may be tied."""
        if tensor is None or id(tensor) not in self._state:
            return self.told(tensor)
        place, _ = self._seen.setdefault(id(tensor), (len(self._seen), tensor))
        return place, _described(tensor)

    def _class(self, kind: type) -> object:
        """A network's class by its code, since tests define it anew; others themselves, since outputs are of them."""
        if kind.__module__ == "builtins" or _is_library(getattr(modules.get(kind.__module__), "__file__", None)):
            return kind
        members = [(name, self._member(member)) for name, member in vars(kind).items() if name not in _OF_EVERY_CLASS]
        itself = kind.__qualname__ if issubclass(kind, nn.Module) else kind
        return itself, tuple(members), tuple(self.told(base) for base in kind.__bases__)

    def _member(self, member: Any) -> object:
        if isinstance(member, staticmethod | classmethod):
            return type(member), self.told(member.__func__)
        if isinstance(member, property):
            return property, self.told(member.fget)
        return self.told(member)

    def _function(self, function: types.FunctionType) -> object:
        is_library = _is_library(function.__code__.co_filename)
        if is_library and function.__closure__ is None:
            return function
        try:
            cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
        except ValueError as error:
            raise Untold("an empty cell") from error
        if is_library:
            return function.__code__, self.told(cells), self.told(vars(function))
        names = [name for name in _names(function.__code__) if name in function.__globals__]
        read = [(name, self.told(function.__globals__[name])) for name in names]
        defaults = function.__defaults__, function.__kwdefaults__, vars(function)
        return function.__code__, tuple(read), self.told(cells), self.told(defaults)


def _described(tensor: Tensor) -> object:
    """All of a tensor but its values, which are finite."""
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout != torch.strided or tensor.is_meta:
        raise Untold(type(tensor).__name__)
    if tensor.is_floating_point() and (tensor.element_size() < 2 or not bool(tensor.detach().isfinite().all())):
        raise Untold("numbers that aren't finite, or may not be")
    return type(tensor), tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.requires_grad, tensor.device


@cache
def _names(code: types.CodeType) -> tuple[str, ...]:
    """The names that code reads, that of functions within it included.

    Raises:
        Untold: It reads what it doesn't name.
    """
    if any(instruction.opname == "IMPORT_NAME" for instruction in dis.get_instructions(code)):
        raise Untold("an import")
    if _REACHING & set(code.co_names):
        raise Untold("code that reads what it doesn't name")
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return tuple(sorted({*code.co_names}.union(*inner)))


@cache
def _is_library(file: str | None) -> bool:
    """Whether a file's code stays as it is: Python's own and what is installed, prunec excepted."""
    return file is not None and str(Path(file).resolve()).startswith(_LIBRARIES)
