"""Engine kinds: what builds, opens, compares and times engines."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes

if TYPE_CHECKING:
    from prunec.passes.size_range import SizeRange as SizeRange
    from prunec.runtime.engines.catalogue import choose_engine as choose_engine
    from prunec.runtime.engines.onnxruntime import OnnxRuntimeSession as OnnxRuntimeSession
    from prunec.runtime.engines.options import EngineOptions as EngineOptions
    from prunec.runtime.engines.protocol import EngineInfo as EngineInfo
    from prunec.runtime.engines.protocol import EngineKind as EngineKind
    from prunec.runtime.engines.protocol import Session as Session
    from prunec.runtime.engines.tensorrt_run import TensorRTSession as TensorRTSession

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "EngineInfo": "prunec.runtime.engines.protocol",
        "EngineKind": "prunec.runtime.engines.protocol",
        "Session": "prunec.runtime.engines.protocol",
        "choose_engine": "prunec.runtime.engines.catalogue",
        "OnnxRuntimeSession": "prunec.runtime.engines.onnxruntime",
        "EngineOptions": "prunec.runtime.engines.options",
        "SizeRange": "prunec.passes.size_range",
        "TensorRTSession": "prunec.runtime.engines.tensorrt_run",
    },
)
