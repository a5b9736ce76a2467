"""Names of the engine kinds, prunec's own and those of plug-ins, and where each of them is."""

from prunec.passes.plugins import Catalogue

#: The kind whose engine is the float32 model itself, which is timed on this machine in any case.
MODEL_ITSELF = "onnxruntime"
ENGINES = Catalogue(
    kind="engine",
    group="prunec.engines",
    own={
        MODEL_ITSELF: "prunec.runtime.engines.onnxruntime:OnnxRuntime",
        "tensorrt": "prunec.runtime.engines.tensorrt:TensorRT",
        "tensorrt_rtx": "prunec.runtime.engines.tensorrt_rtx:TensorRTRTX",
    },
)
