"""Engines: what builds and runs them."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.runtime.engines.building import EngineInfo as EngineInfo
    from prunec.runtime.engines.building import build_engine as build_engine
    from prunec.runtime.engines.building import choose_builder as choose_builder
    from prunec.runtime.engines.building import has_device as has_device
    from prunec.runtime.engines.onnxruntime import OnnxRuntimeEngine as OnnxRuntimeEngine
    from prunec.runtime.engines.options import EngineOptions as EngineOptions
    from prunec.runtime.engines.shapes import SizeRange as SizeRange
    from prunec.runtime.engines.tensorrt_run import TensorRTEngine as TensorRTEngine

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "EngineInfo": "prunec.runtime.engines.building",
        "build_engine": "prunec.runtime.engines.building",
        "choose_builder": "prunec.runtime.engines.building",
        "has_device": "prunec.runtime.engines.building",
        "OnnxRuntimeEngine": "prunec.runtime.engines.onnxruntime",
        "EngineOptions": "prunec.runtime.engines.options",
        "SizeRange": "prunec.runtime.engines.shapes",
        "TensorRTEngine": "prunec.runtime.engines.tensorrt_run",
    },
)
