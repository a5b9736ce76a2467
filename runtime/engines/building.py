"""Building an engine with any kind, in the process of native code, and checking what the kind gives back."""

from pathlib import Path
from typing import Any

from prunec.passes.errors import UsageError
from prunec.passes.unknown import Unknown
from prunec.runtime import children
from prunec.runtime.engines import served
from prunec.runtime.engines.names import ENGINES
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.protocol import EngineInfo, EngineKind
from prunec.runtime.target import Target


def parse_model(kind: EngineKind, onnx_path: Path, options: EngineOptions) -> str | Unknown:
    """`EngineKind.parse`, whose arguments these are besides the kind.

    Raises:
        UnsupportedModelError: The library refuses the model.
        UsageError: The options don't fit the model.
        NativeCrashError: The library dies.
    """
    stage = f"{kind.title} parsed {onnx_path.name}"
    with ENGINES.blame(kind.name):
        return children.call(stage, served.parse, kind.name, onnx_path.absolute(), options)


def build_engine(kind: EngineKind, target: Target, onnx_path: Path, folder: Path, options: EngineOptions) -> EngineInfo:
    """`EngineKind.build`, whose arguments these are besides the kind.

    Raises:
        UsageError: As `EngineKind.build`, or a plug-in's engine fails, or isn't there when it is built.
        UnsupportedModelError: The library refuses the model.
        NativeCrashError: The library dies.
    """
    stage = f"{kind.title} built an engine of {onnx_path.name}"
    paths = onnx_path.absolute(), folder.absolute()
    with ENGINES.blame(kind.name):
        engine: Any = children.call(stage, served.build, kind.name, target, *paths, options)
        if not isinstance(engine, EngineInfo):
            raise UsageError(f"The engine {kind.name!r} built {engine!r}; expected an EngineInfo.")
        if not engine.path.is_file():
            raise UsageError(f"The engine {kind.name!r} wrote no file: there is no {engine.path.name} in {folder}.")
        return kind.on_this_machine(target, engine)
