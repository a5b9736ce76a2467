"""Targets, ONNX export, engines, latency, accuracy and per-operator profiles."""

from prunec.passes.lazy import lazy_attributes

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "DEVICES": "prunec.runtime.target",
        "Target": "prunec.runtime.target",
        "export_onnx": "prunec.runtime.onnx_export",
        "to_fp16": "prunec.runtime.onnx_export",
        "check_sparsity": "prunec.runtime.onnx_sparsity",
        "compare_latency": "prunec.runtime.latency",
        "onnx_vs_torch": "prunec.runtime.numerics",
        "profile_onnx": "prunec.runtime.profile",
        "top1": "prunec.runtime.evaluate",
        "top5": "prunec.runtime.evaluate",
    },
)
