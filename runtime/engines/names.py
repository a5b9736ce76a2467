"""Names of the engine kinds, prunec's own and those of plug-ins, and where each of them is."""

from prunec.passes.plugins import Catalogue

ENGINES = Catalogue(
    kind="engine",
    group="prunec.engines",
    own={
        "onnxruntime": "prunec.runtime.engines.onnxruntime:OnnxRuntime",
        "tensorrt": "prunec.runtime.engines.tensorrt:TensorRT",
        "tensorrt_rtx": "prunec.runtime.engines.tensorrt_rtx:TensorRTRTX",
    },
)
