"""Copies of a network that tracing and running may change: shapes, grids and counters that a forward pass remembers."""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunec.passes.errors import first_line
from prunec.passes.tensors import copied, named_tensors

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
    """Fresh copies of a network in eval mode, as it was before anything ran it.

    They share parameters and buffers with each other and not with the network: torch.export replaces them by fake
    ones, and whoever runs a copy lends it other buffers.

    Attributes:
        name: The network's class.
        note: Why the network itself has to run instead of copies; empty where it can be copied.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.name, self.note = type(module).__name__, ""
        tensors = named_tensors(module)
        copies = copied(tensors)
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
                module = copy.deepcopy(module, {**_copied_apart(module), **self._tensors})
        except Exception as error:  # noqa: BLE001 - whatever a foreign __deepcopy__ or __reduce_ex__ raises
            self.note = (
                f"{self.name} can't be copied ({type(error).__name__}: {first_line(error)}), so it was itself run: "
                "what its forward pass remembers may have changed."
            )
        return module.eval()


def duplicate(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module that holds tensors which were computed from others.

    Raises:
        Exception: Whatever a foreign ``__deepcopy__`` or ``__reduce_ex__`` raises.
    """
    return copy.deepcopy(module, _copied_apart(module))


def _copied_apart(module: nn.Module) -> dict[int, Any]:
    """Copies, by identity, of what modules hold and `copy.deepcopy` can't copy, or takes long for.

    Those are tensors that were computed from others, such as a normed weight, and the many empty tables of hooks.
    """
    held = [value for part in module.modules() for value in vars(part).values()]
    computed = {id(value): value.detach().clone() for value in held if isinstance(value, Tensor) and not value.is_leaf}
    return computed | {id(value): type(value)() for value in held if type(value) in _TABLES and not value}


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
