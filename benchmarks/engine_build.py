"""Time of building an engine, against a bare build of the same ONNX model with tensorrt_rtx.

The bare build is what the library's documentation shows: parse, one profile, build, write the file, and nothing else.
Both run in turns in this process, for compute capability 8.0, after one build of each; the ratio is of the medians.

Run from the top folder: python -m benchmarks.engine_build
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tensorrt_rtx as trt
import torch
from torch import nn

from benchmarks.tables import finish
from prunec.compiler.project.model_options import ModelOptions
from prunec.compiler.project.project import Project
from prunec.passes import Program, capture
from prunec.passes.sparsify import Sparsify
from prunec.runtime.engines.options import EngineOptions
from prunec.runtime.engines.tensorrt_rtx import TensorRTRTX
from prunec.runtime.onnx_export import export_onnx
from prunec.runtime.onnx_precision import to_fp16
from prunec.runtime.target import Target
from tests.architectures.mobilenet_v2 import mobilenet_v2
from tests.architectures.redraw import redraw_
from tests.architectures.resnet import resnet50
from tests.architectures.vit import vit_tiny

EXAMPLE = Path("examples/fashion_mnist/model.pt")
#: prunec's time over the bare build's.
_LIMIT = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="builds of each (default 5)")
    runs = parser.parse_args().runs
    rows, missed = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in NETWORKS.items():
            program = Sparsify().run(make()).program.eval()
            for precision in ("fp16", "fp32"):
                path = exported(program, precision, Path(scratch))
                target = Target.parse(f"a100-{'2:4' if precision == 'fp16' else 'dense'}-{precision}")
                ours, bare = [], []
                for _ in range(runs + 1):
                    ours.append(seconds(lambda: TensorRTRTX().build(target, path, path.parent, EngineOptions())))  # noqa: B023
                    bare.append(seconds(lambda: bare_build(path)))  # noqa: B023
                ratio = statistics.median(ours[1:]) / statistics.median(bare[1:])
                rows.append(
                    (
                        name,
                        precision,
                        f"{statistics.median(ours[1:]):.2f}",
                        f"{statistics.median(bare[1:]):.2f}",
                        f"{ratio:.2f}",
                    )
                )
                if ratio > _LIMIT:
                    missed.append(f"{name} {precision}: {ratio:.2f} times the bare build, allowed {_LIMIT}")
    finish(
        "Building an engine for compute capability 8.0", ("network", "precision", "s", "bare, s", "ratio"), rows, missed
    )


def drawn(make: Callable[[], nn.Module]) -> Callable[[], Program]:
    return lambda: capture(redraw_(make(), seed=0), (torch.zeros(2, 3, 224, 224),))


NETWORKS: dict[str, Callable[[], Program]] = {
    "example": lambda: Project.find(EXAMPLE).load(EXAMPLE, ModelOptions()).program,
    "ResNet-50": drawn(resnet50),
    "MobileNetV2": drawn(mobilenet_v2),
    "ViT": drawn(vit_tiny),
}


def exported(program: Program, precision: str, folder: Path) -> Path:
    path = folder / "model.onnx"
    export_onnx(program, path)
    if precision == "fp32":
        return path
    to_fp16(path, folder / "model.fp16.onnx")
    return folder / "model.fp16.onnx"


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def bare_build(path: Path) -> None:
    """As little as a build takes."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise SystemExit(f"{path} can't be parsed")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        profile.set_shape(tensor.name, *[tuple(batch if d == -1 else d for d in shape) for batch in (1, 8, 32)])
    config.add_optimization_profile(profile)
    path.with_name("bare.rtx").write_bytes(builder.build_serialized_network(network, config))


if __name__ == "__main__":
    main()
