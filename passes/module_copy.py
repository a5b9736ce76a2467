"""Copies of a network that tracing and running may change: shapes, grids and counters that a forward pass remembers."""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.errors import UnsupportedModelError, first_line
from prunec.passes.tensors import CPU, copied, copy_of, like, named_tensors

#: Modules that run another one, by the name of the attribute that holds it.
_WRAPPERS: dict[type[nn.Module], str] = {
    nn.DataParallel: "module",
    nn.parallel.DistributedDataParallel: "module",
    torch._dynamo.OptimizedModule: "_orig_mod",
}
#: Types of the tables that every module has.
_TABLES = (dict, set, OrderedDict)


def unwrapped(module: nn.Module) -> nn.Module:
    """The network within DataParallel, DistributedDataParallel or ``torch.compile``."""
    while wrapper := next((held for kind, held in _WRAPPERS.items() if isinstance(module, kind)), None):
        module = getattr(module, wrapper)
    return module


class Copies:
    """Fresh copies of a network on the CPU in eval mode, as it was before anything ran it.

    They share parameters and buffers with each other and not with the network: torch.export replaces them by fake
    ones, and whoever runs a copy lends it other buffers. Functions that a network holds see the copy in its place.

    Attributes:
        name: The network's class.
        note: Why the network itself has to run instead of copies; empty where it can be copied.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.name, self.note = type(module).__name__, ""
        tensors = named_tensors(module)
        copies = copied(tensors, CPU)
        self._tensors = {id(tensor): copies[name] for name, tensor in tensors.items()}

    def to_trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Module:
        """A copy for torch.export."""
        module = self.to_run()
        return module if self.note else _with_named_inputs(module, args, kwargs)

    def shapes_to_trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], shapes: Any) -> Any:
        """``dynamic_shapes`` of the network's own forward as those of the copy to trace, which names each input."""
        parameters = inspect.signature(self._module.forward).parameters
        if self.note or not _takes_any_keyword(parameters):
            return shapes
        names = inspect.signature(self._module.forward).bind(*args, **kwargs).arguments
        named: dict[str, Any] = {}
        for name, shape in (shapes if isinstance(shapes, Mapping) else dict(zip(names, shapes, strict=True))).items():
            if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                named |= {f"args_{position}": one for position, one in enumerate(shape, len(args) - len(shape))}
            else:
                named |= shape if parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: shape}
        return named

    def to_run(self) -> nn.Module:
        """A copy to run."""
        module = self._module
        try:
            if not self.note:
                module = _copy(module, {**_copied_apart(module), **self._tensors})
        except Exception as error:  # noqa: BLE001 - whatever a foreign __deepcopy__ or __reduce_ex__ raises
            self.note = (
                f"{self.name} can't be copied ({type(error).__name__}: {first_line(error)}), so it was itself run: "
                "what its forward pass remembers may have changed."
            )
        if self.note:
            self._check_home()
        return module.eval()

    def _check_home(self) -> None:
        """Refuse to run the network itself where it isn't with the inputs."""
        if away := _away(self._module):
            raise UnsupportedModelError(
                f"{self.name} is on {away}, and prunec, which reads networks on the CPU, can't copy it: {self.note}",
                hint="Hand it over on the CPU: network.cpu().",
            )


def duplicate(module: nn.Module) -> nn.Module:
    """A deep copy on the CPU, also of a module that holds tensors which were computed from others.

    Raises:
        Exception: Whatever a foreign ``__deepcopy__`` or ``__reduce_ex__`` raises.
    """
    return _copy(module, _copied_apart(module))


def _copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A copy of a network and of all that its attributes and hooks refer to, functions' own variables included.

    Args:
        module: The network.
        memo: Copies by the identity of what they stand for, as `copy.deepcopy` takes it; it is added to.

    Raises:
        Exception: Something can't be copied.
    """
    result = copy.deepcopy(module, memo)
    for part in module.modules():
        twin = memo.get(id(part))
        if not isinstance(twin, nn.Module) or twin is part:
            raise TypeError(f"the copy of a {type(part).__name__} is no other module")
        for name, value in vars(part).items():
            if _is_function(value):
                vars(twin)[name] = _with_copies(value, memo)
            elif isinstance(value, dict | list) and value:
                items = value.items() if isinstance(value, dict) else enumerate(value)
                for key, held in filter(lambda item: _is_function(item[1]), items):
                    vars(twin)[name][key] = _with_copies(held, memo)
    return result


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType | MethodType | partial)


def _with_copies(value: Any, memo: dict[int, Any]) -> Any:
    """What a function, or a value that it holds on to, is for a copied network: `copy.deepcopy` shares functions."""
    if isinstance(value, MethodType):
        return MethodType(_with_copies(value.__func__, memo), copy.deepcopy(value.__self__, memo))
    if isinstance(value, partial):
        given = {key: _with_copies(held, memo) for key, held in value.keywords.items()}
        return partial(_with_copies(value.func, memo), *(_with_copies(held, memo) for held in value.args), **given)
    if not (isinstance(value, FunctionType) and value.__closure__):
        return copy.deepcopy(value, memo)
    if id(value) not in memo:
        cells = tuple(CellType() for _ in value.__closure__)
        twin = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
        memo[id(value)] = twin
        twin.__kwdefaults__, twin.__dict__ = value.__kwdefaults__, dict(value.__dict__)
        for cell, source in zip(cells, value.__closure__, strict=True):
            cell.cell_contents = _with_copies(source.cell_contents, memo)
    return memo[id(value)]


def _copied_apart(module: nn.Module) -> dict[int, Any]:
    """Copies, by identity, of what modules hold and `copy.deepcopy` can't copy, takes long for, or leaves elsewhere.

    Those are tensors that were computed from others, such as a normed weight, the many empty tables of hooks, and all
    tensors of a module that is on another device.
    """
    held = [value for part in module.modules() for value in vars(part).values()]
    computed = [value for value in held if isinstance(value, Tensor) and not value.is_leaf]
    away = [*named_tensors(module).values(), *_tensors_within(held, set())] if _away(module) else []
    tensors = {id(tensor): like(tensor, copy_of(tensor, CPU)) for tensor in (*computed, *away)}
    return tensors | {id(value): type(value)() for value in held if type(value) in _TABLES and not value}


def _tensors_within(values: Iterable[Any], seen: set[int]) -> Iterator[Tensor]:
    """Tensors among values, in what they contain, and in the variables of functions among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            yield from _tensors_within(_parts(value), seen)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, partial):
        return value.func, *value.args, *value.keywords.values()
    cells = value.__closure__ if isinstance(value, FunctionType) else None
    return [cell.cell_contents for cell in cells or () if _is_filled(cell)]


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty one raises
    except ValueError:
        return False
    return True


def _away(module: nn.Module) -> str:
    """The device of a tensor of a module that isn't on the CPU; empty where all are."""
    plain = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    tensors = (*named_tensors(module).values(), *plain)
    return next((str(tensor.device) for tensor in tensors if tensor.device != CPU and not tensor.is_meta), "")


def _takes_any_keyword(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _with_named_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> nn.Module:
    """The module, whose forward names each input if it takes ``**kwargs``, whose sizes torch.export can't vary."""
    forward, kinds = module.forward, inspect.Parameter
    parameters = inspect.signature(forward).parameters
    if not _takes_any_keyword(parameters):
        return module
    names = [p.name for p in parameters.values() if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    names += [f"args_{position}" for position in range(len(names), len(args))]
    named = [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in names[: len(args)]]
    named += [kinds(name, kinds.KEYWORD_ONLY) for name in kwargs]

    def explicit(*given: Any, **by_name: Any) -> Any:
        return forward(*given, **by_name)

    explicit.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    module.forward = explicit
    return module
