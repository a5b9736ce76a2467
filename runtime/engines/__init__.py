"""Engines: what builds and runs them."""

from prunec.passes.lazy import lazy_attributes

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "EngineInfo": "prunec.runtime.engines.building",
        "build_engine": "prunec.runtime.engines.building",
        "choose_builder": "prunec.runtime.engines.building",
        "has_device": "prunec.runtime.engines.building",
        "OnnxRuntimeEngine": "prunec.runtime.engines.onnxruntime",
        "TensorRTEngine": "prunec.runtime.engines.tensorrt",
    },
)
