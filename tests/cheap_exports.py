"""What torch does anew for every export is done once per process: together a third of a small compile's time.

Nothing of what comes out changes: what is kept is checked, where it could change, to be what it was. The same program
with the same tensors is exported once; that two exports of it are alike is what tests with `anew` see to.
"""

import sys
import typing
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from prunec.passes.tensors import fingerprint

#: The exporter makes a registry of all its operators here.
_REGISTRATION = "torch.onnx._internal.exporter._registration"
#: The names of all operators of C++ are looked up here, once for every namespace of operators.
_UTILS = "torch._export.utils"
#: Programs are exported here.
_EXPORTER = "torch.onnx"
#: So many exports are kept, of so many bytes at most.
_KEPT, _LARGEST = 100, 4_000_000
_kept: OrderedDict[object, bytes] = OrderedDict()
_is_anew = ContextVar("_is_anew", default=False)
#: The dispatcher's functions are annotated here with callables, which collections.abc makes anew at each call.
_OPERATORS = "torch._ops"


def keep_what_exports_share() -> None:
    """Change those of torch's modules that are imported by now and aren't changed yet."""
    changes = {
        _REGISTRATION: _keep_registry, _UTILS: _keep_names, _OPERATORS: _keep_annotations, _EXPORTER: _keep_exports,
    }  # fmt: skip
    for name, change in changes.items():
        module = sys.modules.get(name)
        if module is not None and not hasattr(module, "changed_by_tests"):
            change(module)
            module.changed_by_tests = True  # type: ignore[attr-defined]


@contextmanager
def anew() -> Iterator[None]:
    """Export every program, also one that was exported before."""
    before = _is_anew.set(True)
    yield
    _is_anew.reset(before)


def _keep_exports(module: Any) -> None:
    """Give what an equal program was exported to."""
    export = module.export

    def kept(program: Any, *inputs: Any, **options: Any) -> Any:
        if inputs or not isinstance(program, ExportedProgram):
            return export(program, *inputs, **options)
        key = None if _is_anew.get() else _content(program, options)
        if key is not None and key in _kept:
            _kept.move_to_end(key)
            return SimpleNamespace(model_proto=onnx.ModelProto.FromString(_kept[key]))
        result = export(program, **options)
        model = result.model_proto
        if key is not None and model.ByteSize() <= _LARGEST:
            _kept[key] = model.SerializeToString()
            if len(_kept) > _KEPT:
                _kept.popitem(last=False)
        return SimpleNamespace(model_proto=model)

    module.export = kept


def _content(program: ExportedProgram, options: dict[str, Any]) -> object:
    """All that an export depends on; None where that can't be told."""
    held = {**program.state_dict, **program.constants}
    if any(isinstance(each, nn.Module) for each in program.graph_module.children()):
        return None
    if not all(isinstance(each, Tensor) for each in held.values()):
        return None
    nodes = [
        (node.op, node.name, str(node.target), repr(node.args), repr(node.kwargs), repr(node.meta.get("val")),
         repr(node.meta.get("nn_module_stack")))
        for node in program.graph.nodes
    ]  # fmt: skip
    told = (
        *nodes,
        repr(program.graph_signature),
        repr(program.range_constraints),
        repr(sorted(options.items(), key=str)),
    )
    first: dict[int, str] = {}
    shared = tuple(first.setdefault(tensor.data_ptr(), name) for name, tensor in sorted(held.items()))
    return told, shared, fingerprint({name: tensor.detach() for name, tensor in held.items()})


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
