"""Targets, ONNX export, engines, latency, accuracy and per-operator profiles."""

from typing import TYPE_CHECKING

from prunec.passes.lazy import lazy_attributes
from prunec.runtime.offline import stay_offline

stay_offline()

if TYPE_CHECKING:
    from prunec.runtime.devices import DEVICES as DEVICES
    from prunec.runtime.evaluate import top1 as top1
    from prunec.runtime.evaluate import top5 as top5
    from prunec.runtime.latency import compare_latency as compare_latency
    from prunec.runtime.numerics import onnx_vs_torch as onnx_vs_torch
    from prunec.runtime.onnx_export import export_onnx as export_onnx
    from prunec.runtime.onnx_precision import to_bf16 as to_bf16
    from prunec.runtime.onnx_precision import to_fp16 as to_fp16
    from prunec.runtime.onnx_sparsity import check_sparsity as check_sparsity
    from prunec.runtime.profile import profile_onnx as profile_onnx
    from prunec.runtime.target import Target as Target

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "DEVICES": "prunec.runtime.devices",
        "Target": "prunec.runtime.target",
        "export_onnx": "prunec.runtime.onnx_export",
        "to_bf16": "prunec.runtime.onnx_precision",
        "to_fp16": "prunec.runtime.onnx_precision",
        "check_sparsity": "prunec.runtime.onnx_sparsity",
        "compare_latency": "prunec.runtime.latency",
        "onnx_vs_torch": "prunec.runtime.numerics",
        "profile_onnx": "prunec.runtime.profile",
        "top1": "prunec.runtime.evaluate",
        "top5": "prunec.runtime.evaluate",
    },
)
