"""What torch does anew for every export is done once per process: together a third of a small compile's time.

Nothing of what comes out changes: what is kept is checked, where it could change, to be what it was.
"""

import sys
import typing
from functools import cache
from types import ModuleType
from typing import Any

import torch

#: The exporter makes a registry of all its operators here.
_REGISTRATION = "torch.onnx._internal.exporter._registration"
#: The names of all operators of C++ are looked up here, once for every namespace of operators.
_UTILS = "torch._export.utils"
#: The dispatcher's functions are annotated here with callables, which collections.abc makes anew at each call.
_OPERATORS = "torch._ops"


def keep_what_exports_share() -> None:
    """Change those of torch's modules that are imported by now and aren't changed yet."""
    changes = {_REGISTRATION: _keep_registry, _UTILS: _keep_names, _OPERATORS: _keep_annotations}
    for name, change in changes.items():
        module = sys.modules.get(name)
        if module is not None and not hasattr(module, "changed_by_tests"):
            change(module)
            module.changed_by_tests = True  # type: ignore[attr-defined]


def _keep_registry(module: Any) -> None:
    """Let the exporter copy its registry of an opset."""
    kind = module.ONNXRegistry
    made = cache(kind.from_torchlib)

    def copied(*opset: int, **named: int) -> object:
        registry = kind()
        registry._opset_version = made(*opset, **named).opset_version
        registry.functions = {name: list(functions) for name, functions in made(*opset, **named).functions.items()}
        return registry

    kind.from_torchlib = staticmethod(copied)


def _keep_names(module: Any) -> None:
    """Look names up again only where operators were registered since."""
    look_up, seen = module._materialize_cpp_cia_ops, list[str]()

    def once() -> None:
        registered = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
        if registered != seen:
            look_up()
            seen[:] = registered

    module._materialize_cpp_cia_ops = once


def _keep_annotations(module: ModuleType) -> None:
    """Annotate with typing's callables, which are kept."""
    module.Callable = typing.Callable  # type: ignore[attr-defined]
