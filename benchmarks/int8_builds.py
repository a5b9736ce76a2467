"""Whether TensorRT-RTX builds engines of Q/DQ files: INT8 for compute capabilities 8.0 and 8.9, FP8 for 8.9 and 12.0.

Weights are drawn anew and ranges are the least and the most value on random inputs: what is tried is the form of the
files. Rows tell of each network how many of its MACs run on grids, the Q/DQ pairs of activations and the engine's size.

FP8 files are float16 beside the grids, as compiles write them; one is refused for 8.0, which has no FP8.

Run from the top folder: python -m benchmarks.int8_builds [--form float8] [NETWORK ...]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import nn

from benchmarks.latency_target import NETWORKS as LATENCY_NETWORKS
from benchmarks.tables import finish
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Project
from prunec.passes import Program, capture
from prunec.passes.errors import UnsupportedModelError
from prunec.passes.quantization.attention import decompose_attention
from prunec.passes.quantization.batchnorm_folding import fold_batch_norms
from prunec.passes.quantization.grids import Form
from prunec.passes.quantization.placement import place
from prunec.passes.quantization.quantizers import quantize
from prunec.passes.sparsify import Sparsify
from prunec.runtime.engines.tensorrt_build import build_plan
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import typed_form
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import resnet50
from tests.architectures.vit import ViT
from tests.passes.quantization.observed import ranges_of

EXAMPLE = Path("examples/fashion_mnist/model.pt")
CAPABILITIES: dict[Form, tuple[tuple[int, int], ...]] = {"symmetric": ((8, 0), (8, 9)), "float8": ((8, 9), (12, 0))}


def _example() -> Program:
    return Project.find(EXAMPLE).load(EXAMPLE, ModelOptions()).program


def _drawn(network: nn.Module, size: int) -> Program:
    return capture(redraw_(network.eval(), 0), (torch.randn(2, 3, size, size),))


def _heads() -> Program:
    network, args = LATENCY_NETWORKS["RetinaNet heads"]()
    return capture(network, args)


NETWORKS: dict[str, Callable[[], Program]] = {
    "example": _example,
    "MobileNetV2": lambda: _drawn(mobilenet_v2(), 224),
    "ResNet-50": lambda: _drawn(resnet50(), 224),
    "ResNet-50 2:4": lambda: Sparsify().run(_drawn(resnet50(), 224)).program,
    "ViT": lambda: _drawn(ViT(28, 4, 96, depth=4, heads=4, classes=10), 28),
    "RetinaNet heads": _heads,
}


def _row(name: str, form: Form, folder: Path) -> list[str]:
    """Export one network and build it for each capability.

    Raises:
        UnsupportedModelError: TensorRT-RTX refuses the file.
    """
    program = decompose_attention(fold_batch_norms(NETWORKS[name]()).program).program
    placement = place(program)
    path = folder / "model.onnx"
    export_onnx(quantize(program, placement, ranges_of(program, placement), form), path)
    pairs = sum(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)
    on_grids = sum(layer.macs for layer in placement.layers if layer.is_quantized)
    built = []
    if form == "float8":
        path = typed_form("fp16", path, folder / "model.fp8.onnx")
    for capability in CAPABILITIES[form]:
        start = time.perf_counter()
        plan = build_plan(
            "tensorrt_rtx", path, sparse=bool(program.masks), ranges={}, compute_capabilities=[capability]
        ).plan
        built.append(f"{plan.nbytes / 2**20:.2f} MiB in {time.perf_counter() - start:.1f} s")
    return [name, f"{100 * on_grids / program.macs():.1f} %", str(pairs), *built]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=[], metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--form", default="symmetric", choices=list(CAPABILITIES), help="of the grids")
    arguments = parser.parse_args()
    names, form = arguments.networks or list(NETWORKS), arguments.form
    rows, missed = [], []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(_row(name, form, Path(folder)))
            except UnsupportedModelError as error:
                missed.append(f"{name}: {error}")
    columns = ("network", "MACs on grids", "Q/DQ pairs", *(f"SM{major}{minor}" for major, minor in CAPABILITIES[form]))
    finish(f"TensorRT-RTX engines of files of the form {form}", columns, rows, missed)


if __name__ == "__main__":
    main()
